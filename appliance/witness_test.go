package appliance

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/vault/audit"
)

// A running gateway has its log cosigned by the witness that its configuration names.
func TestRunsWithWitness(t *testing.T) {
	key, err := audit.NewWitnessKey("witness.example", bytes.Repeat([]byte{1}, 32))
	check(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s := newWorld(t, "alpha.example").sites[0]
	s.make(nil, func(c *config.Config) {
		c.Audit.Witnesses = []string{"http://" + ln.Addr().String() + " " + key.Verifier()}
	})
	vault, err := keystore.Open(t.Context(), s.config.Vault, false)
	check(t, err)
	log, err := audit.VaultKey(t.Context(), vault.Vault)
	check(t, errors.Join(err, vault.Close()))
	w, err := audit.NewWitness(key, t.TempDir(), []string{log.Verifier()})
	check(t, err)
	done := make(chan error, 1)
	go func() { done <- ServeWitness(t.Context(), ln, w, nil, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() { check(t, <-done) })
	s.run(Options{})
	v, err := audit.ParseWitness(key.Verifier())
	check(t, err)
	until(t, func() bool {
		c, err := s.gateway.tenants[0].vault.LastCheckpoint(t.Context())
		return err == nil && len(audit.Cosigned(c.Note, []note.Verifier{v})) == 1
	})
}
