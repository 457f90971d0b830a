package appliance

import (
	"context"
	"log/slog"

	"dimegate/appliance/keystore"
	"dimegate/dmtp/message"
)

// sayLayer has the organisations' signets say what [alt] says, where they do not yet: those from before the layer, or from before
// a change. A signet that cannot be made anew stays as it is, since nothing of ours or of a peer's hangs on what it says.
func (t *tenant) sayLayer(ctx context.Context) error {
	text, err := keystore.LayerPolicy(t.config.Alt)
	if err != nil {
		return err
	}
	for _, domain := range t.domains() {
		changed, err := keystore.SayInSignet(ctx, t.vault.Vault, domain, message.PolicyField, text, t.Now())
		switch {
		case err != nil:
			t.Log.LogAttrs(ctx, slog.LevelWarn, "the organisation's signet does not say what [alt] says", slog.String("domain", domain), slog.Any("error", err))
		case changed:
			t.Log.LogAttrs(ctx, slog.LevelInfo, "the organisation's signet was made anew: its policy of the alternate layer changed", slog.String("domain", domain), slog.String("policy", text))
		}
	}
	return nil
}
