package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// An OwnVault is one [vault.own."…"] table: a vault that only the organisations that name it use.
type OwnVault struct {
	Folder      string   `toml:"folder"`       // default vaults/NAME in the data folder
	HostSeal    Seal     `toml:"host_seal"`    // default key_file seals/NAME/host.key in the data folder
	SigningSeal Seal     `toml:"signing_seal"` // default key_file seals/NAME/signing.key in the data folder
	Witnesses   []string `toml:"witnesses"`    // as audit.witnesses, of this vault's log; default none
}

// Key is one of the vault's keys in full, for errors: "folder" is "vault.folder", or "vault.own.NAME.folder" of a vault of its own.
func (v Vault) Key(key string) string {
	if v.Name == "" {
		return "vault." + key
	}
	return "vault.own." + v.Name + "." + key
}

// WitnessKey is the key of a witness of the vault's log in full, for errors; the first is 0.
func (v Vault) WitnessKey(i int) string {
	return fmt.Sprintf("%s[%d]", v.witnesses(), i+1)
}

// Tenants are views of a resolved configuration, one for each vault in use, in the order of their first organisations: each is the
// whole with the organisations of that vault alone, and with that vault and its witnesses as [vault] and [audit]. Without any
// organisation there is one, of [vault].
func (c *Config) Tenants() []*Config {
	var all []*Config
	if len(c.Organizations) == 0 {
		return []*Config{c.tenant("")}
	}
	for _, o := range c.Organizations {
		i := slices.IndexFunc(all, func(view *Config) bool { return view.Vault.Name == o.Vault })
		if i < 0 {
			i = len(all)
			all = append(all, c.tenant(o.Vault))
		}
		all[i].Organizations = append(all[i].Organizations, o)
	}
	return all
}

// Whole is the configuration that a view is of, with all organisations; that of no view is itself.
func (c *Config) Whole() *Config {
	if c.whole != nil {
		return c.whole
	}
	return c
}

func (c *Config) tenant(vault string) *Config {
	view := *c
	view.whole, view.Organizations = c.Whole(), nil
	view.Vault.Own = nil
	if own, ok := c.Vault.Own[vault]; ok {
		view.Vault = Vault{Name: vault, Folder: own.Folder, HostSeal: own.HostSeal, SigningSeal: own.SigningSeal, CheckSeals: c.Vault.CheckSeals}
		view.Audit.Witnesses = own.Witnesses
	}
	return &view
}

// Serves tells whether one of the organisations has this name, or this domain.
func (c *Config) Serves(name string) bool {
	return slices.ContainsFunc(c.Organizations, func(o Organization) bool {
		return strings.EqualFold(o.Name, name) || slices.Contains(o.Domains, strings.ToLower(name))
	})
}

// resolveVaults fills what the vaults leave open.
func (c *Config) resolveVaults(at func(path *string, fallback string)) {
	at(&c.Vault.Folder, "vault")
	c.Vault.HostSeal.resolve(at, "seals/host.key")
	c.Vault.SigningSeal.resolve(at, "seals/signing.key")
	own := make(map[string]OwnVault, len(c.Vault.Own))
	for name, v := range c.Vault.Own {
		at(&v.Folder, filepath.Join("vaults", name))
		v.HostSeal.resolve(at, filepath.Join("seals", name, "host.key"))
		v.SigningSeal.resolve(at, filepath.Join("seals", name, "signing.key"))
		own[name] = v
	}
	c.Vault.Own = own
}

func (s *Seal) resolve(at func(path *string, fallback string), keyFile string) {
	if s.PKCS11Name == "" {
		s.PKCS11Name = defaultSeal.PKCS11Name
	}
	if s.TransitMount == "" {
		s.TransitMount = defaultSeal.TransitMount
	}
	if s.Ways() > 0 {
		keyFile = ""
	}
	at(&s.KeyFile, keyFile)
	for _, path := range []*string{&s.PassphraseFile, &s.PKCS11Socket, &s.TransitTokenFile, &s.TransitCAFile} {
		at(path, "")
	}
}

// witnesses is the key of the list of witnesses, for errors.
func (v Vault) witnesses() string {
	if v.Name == "" {
		return "audit.witnesses"
	}
	return v.Key("witnesses")
}

// checkWitnessed refuses an archive whose log nobody but its own host vouches for: officers' tools would open nothing of it.
func (c *Config) checkWitnessed(k checker) {
	for _, view := range c.Tenants() {
		if c.Archive.Keep && len(view.Audit.Witnesses) == 0 {
			k.bad(view.Vault.witnesses(), "the archive needs a witness of its log, which officers' tools demand: make one with \"gateway witness init\" on another machine")
		}
	}
}

// checkVaults checks every vault, and that no two of them have a folder or a way in together.
func (c *Config) checkVaults(k checker) {
	for _, name := range slices.Sorted(maps.Keys(c.Vault.Own)) {
		k := k.at("vault.own.%s.", name)
		if !isVaultName(name) {
			k.bad("folder", "the vault's name %q is not made of a-z, 0-9 and \"-\"", name)
		}
		if !slices.ContainsFunc(c.Organizations, func(o Organization) bool { return o.Vault == name }) {
			k.bad("folder", "no organization has vault = %q: it would never be opened", name)
		}
		(&Audit{c.Vault.Own[name].Witnesses}).check(k)
	}
	var before []Vault
	ways := map[string]string{} // what opens a seal, and the key that names it
	for _, view := range c.Tenants() {
		v := view.Vault
		for _, other := range before {
			if inside(v.Folder, other.Folder) || inside(other.Folder, v.Folder) {
				k.bad(v.Key("folder"), "%s is not apart from %s, which is %s", v.Folder, other.Folder, other.Key("folder"))
			}
		}
		if f := c.Backup.KeysFolder; f != "" && inside(v.Folder, f) {
			k.bad("backup.keys_folder", "%s lies in the vault's folder: name one on other storage, which survives the loss of this one", f)
		}
		before = append(before, v)
		for _, role := range []string{"host_seal", "signing_seal"} {
			s := v.HostSeal
			if role == "signing_seal" {
				s = v.SigningSeal
			}
			s.check(k.at("%s.", v.Key(role)))
			for _, way := range s.ways() {
				key := v.Key(role + "." + way.key)
				if owner, taken := ways[way.key+" "+way.what]; taken {
					k.bad(key, "is %s, too: each seal needs what opens it for itself", owner)
					continue
				}
				ways[way.key+" "+way.what] = key
			}
		}
	}
}

// A way is one thing that opens a seal.
type way struct{ key, what string }

// ways are the ways in that are named.
func (s Seal) ways() []way {
	all := []way{{"key_file", s.KeyFile}, {"passphrase_file", s.PassphraseFile}, {"credential", s.Credential}, {"pkcs11_socket", s.PKCS11Socket}}
	if s.TransitAddress != "" {
		all = append(all, way{"transit_key", s.TransitAddress + " " + s.TransitMount + " " + s.TransitKey})
	}
	return slices.DeleteFunc(all, func(w way) bool { return w.what == "" })
}

// inside tells whether a path is a folder or lies in it.
func inside(folder, path string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(rel)
}

// isVaultName tells whether a name can stand in the name of a folder and of a key.
func isVaultName(name string) bool {
	return name != "" && len(name) <= 63 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && name[0] != '-'
}
