package keystore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"dimegate/appliance/keystore"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

// itself answers for the same vault's users, as if they were another organisation's.
type itself struct{ k *trustful.Keeper }

func (p *itself) Author(ctx context.Context, address string, _ signet.Fingerprint) (*signet.Signet, error) {
	return p.k.Current(ctx, address)
}

func (p *itself) History(ctx context.Context, address string, _ signet.Fingerprint) ([]*signet.Signet, error) {
	return p.k.Chain(ctx, address)
}

func (*itself) Current(context.Context, string, signet.Fingerprint) (bool, error) { return true, nil }

// BenchmarkTrustful seals and opens as the gateway does, on a real vault, and beside it the same without: the difference
// is what keys at rest, pins and look-ups cost.
func BenchmarkTrustful(b *testing.B) {
	v, ctx := newVault(b), b.Context()
	for _, d := range []string{"a.example", "b.example"} {
		if _, err := keystore.CreateOrganization(ctx, v, d, "", made); err != nil {
			b.Fatal(err)
		}
	}
	p := &itself{}
	k, err := trustful.NewKeeper(trustful.Options{Store: keystore.Keys{Vault: v}, Organization: keystore.Organization{Vault: v},
		Pins: trustful.NewPins(keystore.Pins{Vault: v}, p, time.Now), Peers: p, Grace: trustful.MinGrace})
	if err != nil {
		b.Fatal(err)
	}
	p.k = k
	bob, err := k.Enrol(ctx, "bob@b.example")
	if err != nil {
		b.Fatal(err)
	}
	orgs, err := keystore.Organization{Vault: v}.Signets(ctx, "b.example")
	if err != nil {
		b.Fatal(err)
	}
	o := trustful.Outgoing{Author: "alice@a.example", Recipient: message.Party{Signet: bob}, Destination: message.Party{Signet: orgs[0]}}
	for _, size := range []int{1 << 10, 10 << 10, 1 << 20} {
		c := &message.Content{
			Common:  []byte("Date: Wed, 25 Nov 2026 12:00:00 +0000\r\nTo: b\r\nFrom: a\r\nSubject: s\r\n"),
			Other:   []byte("DIME-Layout: 1 hdr=full body=concat\r\n\r\n"),
			Display: []message.Part{{Data: bytes.Repeat([]byte{'x'}, size)}},
		}
		b.Run(fmt.Sprintf("seal/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := k.Seal(ctx, o, c); err != nil {
					b.Fatal(err)
				}
			}
		})
		in := incoming(b, k, keystore.Organization{Vault: v}, o, c)
		b.Run(fmt.Sprintf("open/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := k.Open(ctx, in); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("compose/%d", size), func(b *testing.B) {
			d, err := k.Prepare(ctx, o)
			if err != nil {
				b.Fatal(err)
			}
			address, s := d.Author()
			signing, err := v.UserSigning(ctx, address, 1)
			if err != nil {
				b.Fatal(err)
			}
			origin, err := keystore.Organization{Vault: v}.Signets(ctx, "a.example")
			if err != nil {
				b.Fatal(err)
			}
			parties := message.Parties{Author: message.Party{Signet: s}, Origin: message.Party{Signet: origin[0]}, Destination: o.Destination, Recipient: o.Recipient}
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := message.Compose(rand.Reader, parties, c, signing); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// incoming is a message signed by its origin.
func incoming(b *testing.B, k *trustful.Keeper, org keystore.Organization, o trustful.Outgoing, c *message.Content) trustful.Incoming {
	b.Helper()
	ctx := b.Context()
	m, err := k.Seal(ctx, o, c)
	if err != nil {
		b.Fatal(err)
	}
	secrets, err := org.Vault.OrgEncryption(ctx, "a.example")
	if err != nil {
		b.Fatal(err)
	}
	opened, err := m.Open(message.Origin, secrets[0])
	if err != nil {
		b.Fatal(err)
	}
	author, err := k.Current(ctx, o.Author)
	if err != nil {
		b.Fatal(err)
	}
	all, err := org.Signets(ctx, "a.example")
	if err != nil {
		b.Fatal(err)
	}
	origin := message.Party{Name: "a.example", Signet: all[0]}
	if err := opened.Verify(message.Parties{Author: message.Party{Signet: author}, Origin: origin, Destination: o.Destination}); err != nil {
		b.Fatal(err)
	}
	primary, err := org.Vault.OrgSigning(ctx, "a.example", 1)
	if err != nil {
		b.Fatal(err)
	}
	if m, err = opened.SignOrigin(primary); err != nil {
		b.Fatal(err)
	}
	fp, err := o.Recipient.Signet.Fingerprint(signet.Crypto)
	if err != nil {
		b.Fatal(err)
	}
	return trustful.Incoming{Message: m, Recipient: o.Recipient.Signet.Name(), RecipientSignet: fp, Origin: origin}
}
