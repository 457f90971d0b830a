package keystore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"dimegate/dmtp/message"
	"dimegate/vault"
)

// The alternate layer's keys of a generation rest as suite u16 ‖ length u16 ‖ private key, one after the other.

// encodeLayers is nil for no keys. The caller clears it.
func encodeLayers(keys []message.LayerKey) (b []byte, err error) {
	for _, k := range keys {
		private, err := k.Bytes()
		if err != nil {
			clear(b)
			return nil, fmt.Errorf("keystore: layer key: %w", err)
		}
		n := make([]byte, 0, len(b)+4+len(private)) // never grown in place: what is left behind is cleared
		n = append(n, b...)
		n = binary.BigEndian.AppendUint16(n, uint16(k.Suite()))
		n = binary.BigEndian.AppendUint16(n, uint16(len(private)))
		n = append(n, private...)
		clear(b)
		clear(private)
		b = n
	}
	return b, nil
}

// decodeLayers keeps no part of b. A suite that this build has not is left out: what lies under it cannot be opened now, and can by a
// build that has it.
func decodeLayers(b []byte) (keys []message.LayerKey, err error) {
	for len(b) > 0 {
		if len(b) < 4 || int(binary.BigEndian.Uint16(b[2:])) > len(b)-4 {
			return nil, fmt.Errorf("keystore: layer keys: %w", vault.ErrCorrupt)
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		k, err := message.ParseLayerKey(message.SuiteID(binary.BigEndian.Uint16(b)), b[4:4+n])
		switch {
		case errors.Is(err, message.AltUnknown):
		case err != nil:
			return nil, fmt.Errorf("keystore: layer keys: %w: %w", vault.ErrCorrupt, err)
		default:
			keys = append(keys, k)
		}
		b = b[4+n:]
	}
	return keys, nil
}
