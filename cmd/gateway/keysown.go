package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/dmtp"
	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/internal/safefile"
	"dimegate/trustful"
)

// The commands of the cautious account mode: a user's client makes the keys, and we sign his signet.
var (
	keysVouchCommand = command{
		name: "vouch", summary: "sign, with a user's current key, that the keys of his request follow it; it is logged",
		usage:   "[--config FILE] [--out FILE] --for ADDRESS REQUEST",
		example: "gateway keys vouch --for alice@example.org --out alice.custody alice.request",
		run:     runKeysVouch,
	}
	keysSignRequestCommand = command{
		name: "sign-request", summary: "sign and publish the signet of keys that a user made and keeps himself; it is logged",
		usage:   "[--config FILE] [--json] [--out FILE] --for ADDRESS REQUEST",
		example: "gateway keys sign-request --for alice@example.org --out alice.signet alice.request",
		run:     runKeysSignRequest,
	}
)

var keysTakeBackCommand = command{
	name: "take-back", summary: "make keys of the gateway's for a user who has his own, with custody by these; it is logged",
	usage:   "[--config FILE] --for ADDRESS --keys FILE",
	example: "gateway keys take-back --for alice@example.org --keys alice.key",
	run:     runKeysTakeBack,
}

// An ownKeys is what both commands are given.
type ownKeys struct {
	address string
	request *signet.Signet
	keeper  *trustful.Keeper
	vault   io.Closer
}

// openOwnKeys reads the request and opens the vault. The caller closes it.
func openOwnKeys(ctx context.Context, std stdio, flags *flag.FlagSet, path, address string, rest []string) (o ownKeys, err error) {
	name := strings.TrimPrefix(flags.Name(), "gateway ")
	if len(rest) != 1 || address == "" {
		return o, usagef("%s: give --for ADDRESS and one file with the user's request", name)
	}
	if o.address, err = trustful.Normal(address); err != nil {
		return o, usagef("--for: %q is not an address that a signet can carry", address)
	}
	c, v, err := openSealed(ctx, path)
	if err != nil {
		return o, err
	}
	if err = o.fill(std, c, v, rest[0]); err != nil {
		return o, errors.Join(err, v.Close())
	}
	o.vault = v
	return o, nil
}

// fill reads the request, and makes the users' agent.
func (o *ownKeys) fill(std stdio, c *config.Config, v *keystore.Opened, file string) (err error) {
	domain := dmtp.DomainOf(o.address)
	org, ours := c.Organization(domain)
	switch {
	case !ours:
		return usagef("--for: %s is not one of our domains", domain)
	case !org.Cautious:
		return refusedError{fmt.Errorf("%s: users of this organization do not keep keys of their own: organization.cautious_accounts is false", o.address)}
	}
	if o.request, err = readSignet(std, file); err != nil {
		return err
	}
	if o.request.Kind() != signet.SSR {
		return usagef("%s: this is a %s: give the signing request that the user's client made (gateway signet request)", file, o.request.Kind())
	}
	o.keeper, err = trustful.NewKeeper(trustful.Options{Store: keystore.Keys{Vault: v.Vault}, Organization: keystore.Organization{Vault: v.Vault},
		Grace: c.Keys.Grace, Separator: c.SeparatorOf, Now: time.Now})
	return err
}

// explain says what to do about a request that is not signed.
func (o ownKeys) explain(err error) error {
	switch {
	case errors.Is(err, trustful.ErrCustody):
		_, has := o.request.Custody()
		if !has {
			return fmt.Errorf("%s has keys already, and the request does not follow them: peers would hold mail: \"gateway keys vouch\" makes the custody, and \"gateway signet request --custody\" puts it in; who has his keys himself gives the old ones with --previous", o.address)
		}
		return fmt.Errorf("%s: the request follows other keys than the current ones: %w: make the custody anew with \"gateway keys vouch\"", o.address, err)
	case errors.Is(err, trustful.ErrNoUser):
		return fmt.Errorf("%s has no keys yet: nothing needs to vouch for the first: sign the request as it is (gateway keys sign-request)", o.address)
	case errors.Is(err, trustful.ErrOwnKeys):
		return fmt.Errorf("%s has his keys himself: he signs the custody with \"gateway signet request --previous OLD.key\"", o.address)
	}
	return err
}

func runKeysVouch(ctx context.Context, std stdio, flags *flag.FlagSet, args []string) error {
	path := flags.String("config", defaultConfig, "configuration `FILE`")
	address := flags.String("for", "", "the user's `ADDRESS`")
	out := flags.String("out", "", "write to `FILE` instead of standard output")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	o, err := openOwnKeys(ctx, std, flags, *path, *address, rest)
	if err != nil {
		return err
	}
	defer o.vault.Close()
	custody, err := o.keeper.Vouch(ctx, o.address, o.request)
	if err != nil {
		return o.explain(err)
	}
	return writeOut(std, *out, []byte(base64.StdEncoding.EncodeToString(custody)+"\n"))
}

func runKeysSignRequest(ctx context.Context, std stdio, flags *flag.FlagSet, args []string) error {
	path := flags.String("config", defaultConfig, "configuration `FILE`")
	address := flags.String("for", "", "the user's `ADDRESS`: that the request is his is your word")
	out := flags.String("out", "", "write the signet to `FILE` instead of standard output")
	asJSON := flags.Bool("json", false, "print JSON")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	o, err := openOwnKeys(ctx, std, flags, *path, *address, rest)
	if err != nil {
		return err
	}
	defer o.vault.Close()
	made, err := o.keeper.Admit(ctx, o.address, o.request)
	if err != nil {
		return o.explain(err)
	}
	if *out != "" || !*asJSON {
		if err := writeOut(std, *out, made.Armored()); err != nil {
			return err
		}
	}
	if !*asJSON {
		return nil
	}
	id, err := made.Fingerprint(signet.ID)
	if err != nil {
		return err
	}
	return json.NewEncoder(std.out).Encode(struct {
		Name   string `json:"name"`
		ID     string `json:"id"`
		Signet string `json:"signet"`
	}{o.address, id.String(), made.Base64()})
}

func runKeysTakeBack(ctx context.Context, std stdio, flags *flag.FlagSet, args []string) error {
	path := flags.String("config", defaultConfig, "configuration `FILE`")
	address := flags.String("for", "", "the user's `ADDRESS`")
	keys := flags.String("keys", "", "the user's private key `FILE`, which he lends for one signature; nothing of it is kept")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 || *address == "" {
		return usagef("keys take-back: give --for ADDRESS and --keys FILE")
	}
	c, v, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	pair, err := readPair(std, "keys", *keys)
	if err != nil {
		return err
	}
	defer pair.Destroy()
	layer, err := keystore.Layer(c.Alt)
	if err != nil {
		return err
	}
	keeper, err := trustful.NewKeeper(trustful.Options{Store: keystore.Keys{Vault: v.Vault}, Organization: keystore.Organization{Vault: v.Vault},
		Grace: c.Keys.Grace, Separator: c.SeparatorOf, Layer: layer, Now: time.Now})
	if err != nil {
		return err
	}
	made, err := keeper.TakeBack(ctx, *address, pair.Signing)
	switch {
	case errors.Is(err, trustful.ErrCustody):
		return fmt.Errorf("%s: this is not the key of his current signet, or that is the gateway's already: \"gateway keys show\" tells", *address)
	case errors.Is(err, trustful.ErrAddress), errors.Is(err, trustful.ErrNotOurs):
		return usagef("--for: %q: %w", *address, err)
	case err != nil:
		return err
	}
	_, err = std.out.Write(made.Armored())
	return err
}

// writeOut writes to a file, or to standard output where none is named.
func writeOut(std stdio, file string, b []byte) error {
	if file == "" {
		_, err := std.out.Write(b)
		return err
	}
	if err := safefile.Write(file, b); err != nil {
		return usagef("--out: %w", err)
	}
	return nil
}

var signetRequestCommand = command{
	name: "request", summary: "make a signing request for keys of your own, and the keys where there are none",
	usage: "[--custody FILE | --previous FILE] [--out FILE] --keys FILE",
	example: "gateway signet request --keys alice.key --out alice.request\n" +
		"gateway signet request --keys alice.key --custody alice.custody --out alice.request",
	run: runSignetRequest,
}

func runSignetRequest(_ context.Context, std stdio, flags *flag.FlagSet, args []string) error {
	keys := flags.String("keys", "", "your private key `FILE`: read, or made (mode 0600) where it is not there")
	custody := flags.String("custody", "", "`FILE` from \"gateway keys vouch\", by which your keys follow those that the gateway had for you")
	previous := flags.String("previous", "", "your private key `FILE` from before, which these keys follow")
	out := flags.String("out", "", "write to `FILE` instead of standard output")
	rest, err := parse(flags, args)
	switch {
	case err != nil:
		return err
	case len(rest) > 0 || *keys == "":
		return usagef("signet request: give --keys FILE")
	case *custody != "" && *previous != "":
		return usagef("signet request: keys follow others by --custody or by --previous")
	}
	var d signet.RequestDetails
	if *custody != "" {
		if d.Custody, err = readCustody(std, *custody); err != nil {
			return err
		}
	}
	if *previous != "" {
		old, err := readPair(std, "previous", *previous)
		if err != nil {
			return err
		}
		defer old.Destroy()
		d.Previous = &old.Signing
	}
	pair, err := ownPair(std, *keys)
	if err != nil {
		return err
	}
	defer pair.Destroy()
	request, err := signet.NewRequest(pair, d)
	if err != nil {
		return err
	}
	return writeOut(std, *out, request.Armored())
}

// readCustody reads what keys vouch wrote.
func readCustody(std stdio, name string) ([]byte, error) {
	b, err := readFile(std, name)
	if err != nil {
		return nil, err
	}
	custody, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(custody) != key.SignatureSize {
		return nil, usagef("--custody %s: this is not what \"gateway keys vouch\" writes", name)
	}
	return custody, nil
}

// ownPair reads a key file, or makes it where there is none.
func ownPair(std stdio, name string) (key.Pair, error) {
	if _, err := os.Stat(name); name == "-" || !errors.Is(err, fs.ErrNotExist) {
		return readPair(std, "keys", name)
	}
	pair, err := key.GeneratePair(rand.Reader)
	if err != nil {
		return key.Pair{}, err
	}
	b := (&key.File{Kind: key.UserKeys, Dialect: key.A, Pair: pair}).Armored()
	defer clear(b)
	if err := safefile.Create(name, b); err != nil {
		pair.Destroy()
		return key.Pair{}, usagef("--keys: %w", err)
	}
	fmt.Fprintf(std.err, "%s: made: it is all that opens your mail, and nobody has a copy: keep one yourself\n", name)
	return pair, nil
}
