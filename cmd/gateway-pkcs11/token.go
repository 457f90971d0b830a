//go:build cgo

package main

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"dimegate/vault"
	"dimegate/vault/seals"
)

// A token is an AES-256 key in a PKCS#11 token. Each use begins with C_Initialize and ends with C_Finalize: uses are
// rare (at start, when seals are looked after), and so a token that was pulled and put back works again, and no session
// stays logged in. One use at a time.
type token struct {
	module          *pkcs11.Ctx
	label, key, pin string
	refused         bool // the PIN was wrong: a few more would lock the token
}

func openToken(module, label, key, pin string) (*token, error) {
	m := pkcs11.New(module)
	if m == nil {
		return nil, fmt.Errorf("%s is no PKCS#11 library", module)
	}
	return &token{module: m, label: label, key: key, pin: pin}, nil
}

func (t *token) close() { t.module.Destroy() }

// gcmNonce and gcmTag are in octets; a blob is nonce ‖ ciphertext ‖ tag.
const (
	gcmNonce = 12
	gcmTag   = 16
)

// Wrap encrypts in the token with AES-256-GCM, the label as associated data.
func (t *token) Wrap(key, label []byte) (out []byte, err error) {
	nonce := make([]byte, gcmNonce)
	rand.Read(nonce)
	err = t.use(func(s pkcs11.SessionHandle, k pkcs11.ObjectHandle) error {
		p := pkcs11.NewGCMParams(nonce, label, gcmTag*8)
		defer p.Free()
		if err := t.module.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, p)}, k); err != nil {
			return err
		}
		sealed, err := t.module.Encrypt(s, key)
		if err != nil {
			return err
		}
		if iv := p.IV(); len(iv) == gcmNonce { // some tokens choose it themselves
			nonce = iv
		}
		out = append(nonce, sealed...)
		return nil
	})
	return out, err
}

// Unwrap is the inverse of Wrap.
func (t *token) Unwrap(blob, label []byte) (out []byte, err error) {
	if len(blob) != gcmNonce+vault.SecretSize+gcmTag {
		return nil, vault.ErrWrongKey
	}
	err = t.use(func(s pkcs11.SessionHandle, k pkcs11.ObjectHandle) error {
		p := pkcs11.NewGCMParams(blob[:gcmNonce], label, gcmTag*8)
		defer p.Free()
		if err := t.module.DecryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, p)}, k); err != nil {
			return err
		}
		if out, err = t.module.Decrypt(s, blob[gcmNonce:]); isCode(err, wrongData...) {
			return vault.ErrWrongKey
		}
		return err
	})
	if isCode(err, pkcs11.CKR_GENERAL_ERROR) { // SoftHSM's word for a tag that does not hold, and every token's for whatever else
		if works := t.works(label); works != nil {
			return nil, fmt.Errorf("%w: the token does not open what it wraps itself: %v", vault.ErrAway, works)
		}
		return nil, vault.ErrWrongKey
	}
	return out, err
}

// works tells why the token does not open what it wraps now.
func (t *token) works(label []byte) error {
	probe := make([]byte, vault.SecretSize)
	blob, err := t.Wrap(probe, label)
	if err != nil {
		return err
	}
	return t.use(func(s pkcs11.SessionHandle, k pkcs11.ObjectHandle) error {
		p := pkcs11.NewGCMParams(blob[:gcmNonce], label, gcmTag*8)
		defer p.Free()
		if err := t.module.DecryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, p)}, k); err != nil {
			return err
		}
		_, err := t.module.Decrypt(s, blob[gcmNonce:])
		return err
	})
}

// wrongData are the codes by which tokens say that the tag does not hold.
var wrongData = []pkcs11.Error{pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_DATA_INVALID}

func isCode(err error, codes ...pkcs11.Error) bool {
	for _, c := range codes {
		if errors.Is(err, c) {
			return true
		}
	}
	return false
}

// use logs in, finds the key, and logs out again.
func (t *token) use(f func(pkcs11.SessionHandle, pkcs11.ObjectHandle) error) error {
	return t.session(func(s pkcs11.SessionHandle) error {
		k, err := t.find(s)
		if err != nil {
			return err
		}
		return f(s, k)
	})
}

func (t *token) session(f func(pkcs11.SessionHandle) error) error {
	if t.refused {
		return seals.ErrTokenRefused
	}
	if err := t.module.Initialize(); err != nil {
		return fmt.Errorf("%w: C_Initialize: %w", vault.ErrAway, err)
	}
	defer t.module.Finalize()
	slot, err := t.slot()
	if err != nil {
		return err
	}
	s, err := t.module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("%w: C_OpenSession: %w", vault.ErrAway, err)
	}
	defer t.module.CloseSession(s)
	switch err := t.module.Login(s, pkcs11.CKU_USER, t.pin); {
	case isCode(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE):
		t.refused = true
		return seals.ErrTokenRefused
	case err != nil && !isCode(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN):
		return fmt.Errorf("%w: C_Login: %w", vault.ErrAway, err)
	}
	defer t.module.Logout(s)
	return f(s)
}

// slot finds the token by its label, which must be the only one of that name.
func (t *token) slot() (uint, error) {
	all, err := t.module.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("%w: C_GetSlotList: %w", vault.ErrAway, err)
	}
	var found []uint
	for _, s := range all {
		if info, err := t.module.GetTokenInfo(s); err == nil && info.Label == t.label {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("%w: no token %q", vault.ErrAway, t.label)
	case 1:
		return found[0], nil
	}
	return 0, fmt.Errorf("%w: %d tokens are called %q", vault.ErrAway, len(found), t.label)
}

func (t *token) find(s pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
	err := t.module.FindObjectsInit(s, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, t.key)})
	if err != nil {
		return 0, fmt.Errorf("%w: C_FindObjectsInit: %w", vault.ErrAway, err)
	}
	list, _, err := t.module.FindObjects(s, 2)
	if ferr := t.module.FindObjectsFinal(s); err == nil {
		err = ferr
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: C_FindObjects: %w", vault.ErrAway, err)
	case len(list) == 0:
		return 0, seals.ErrNoTokenKey
	case len(list) > 1:
		return 0, fmt.Errorf("%w: more than one key is called %q", seals.ErrNoTokenKey, t.key)
	}
	return list[0], nil
}

// makeKey makes an AES-256 key that cannot be taken out of the token. It makes no second one of a name.
func (t *token) makeKey() error {
	return t.session(func(s pkcs11.SessionHandle) error {
		if _, err := t.find(s); err == nil {
			return fmt.Errorf("the token has a key %q already", t.key)
		} else if !errors.Is(err, seals.ErrNoTokenKey) {
			return err
		}
		yes := []uint{pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT}
		attributes := []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, t.key), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, vault.SecretSize),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_MODIFIABLE, false)}
		for _, a := range yes {
			attributes = append(attributes, pkcs11.NewAttribute(a, true))
		}
		_, err := t.module.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, attributes)
		if err != nil {
			return fmt.Errorf("C_GenerateKey: %w", err)
		}
		return nil
	})
}
