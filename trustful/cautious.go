package trustful

import (
	"context"
	"errors"
	"fmt"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
)

// Errors of the cautious account mode, in which a user's private keys are with his own client and never here.
var (
	// ErrOwnKeys is returned where a user's private keys would be needed and he has them himself.
	ErrOwnKeys = errors.New("trustful: the user has his keys himself")
	// ErrCustody is returned for a signing request that does not follow the user's current signet, and must.
	ErrCustody = errors.New("trustful: the request does not follow the current signet")
	// ErrRequest is returned for a signing request that cannot become a signet here.
	ErrRequest = errors.New("trustful: not a signing request that can be signed here")
)

// Vouch makes the chain of custody signature by which keys that a user made himself follow his current ones, which are ours: his
// client puts it into the request that Admit takes. The caller knows that the request is his. What is signed is in the log first.
// ErrNoUser where he has no keys yet, and needs no custody; ErrOwnKeys where he has them himself, and signs himself.
func (k *Keeper) Vouch(ctx context.Context, address string, request *signet.Signet) ([]byte, error) {
	address, release, err := k.own(ctx, address)
	if err != nil {
		return nil, err
	}
	defer release()
	u, err := k.current(ctx, address)
	switch {
	case err != nil:
		return nil, err
	case u.held:
		return nil, ErrOwnKeys
	}
	if err := checkRequest(request); err != nil {
		return nil, err
	}
	signing, err := k.Store.Signing(ctx, address, u.number)
	if err != nil {
		return nil, err
	}
	defer signing.Destroy()
	if err := k.Store.Vouched(ctx, address, u.number, request.Bytes(), k.Now()); err != nil {
		return nil, err
	}
	return request.Vouch(signing)
}

// Admit signs and publishes the signet of keys that a user made himself: the cautious mode begins, or he rotates in it. The caller
// knows that the request is his. Where he has keys, the request must follow his current signet: ErrCustody. Keys of his that are
// ours open mail until Sweep destroys them; the signing key is destroyed at once.
func (k *Keeper) Admit(ctx context.Context, address string, request *signet.Signet) (*signet.Signet, error) {
	address, release, err := k.own(ctx, address)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := checkRequest(request); err != nil {
		return nil, err
	}
	all, err := k.Store.Generations(ctx, address)
	if err != nil {
		return nil, err
	}
	if err := follows(request, all); err != nil {
		return nil, err
	}
	domain := domainOf(address)
	made, err := k.Organization.SignRequest(ctx, domain, request, signet.Details{Name: address})
	if err != nil {
		return nil, err
	}
	org, err := k.organization(ctx, domain)
	if err != nil {
		return nil, err
	}
	if err := made.VerifyUser(org); err != nil {
		return nil, fmt.Errorf("trustful: the signet that was signed: %w", err)
	}
	if made.Form() != signet.ID || made.Name() != address || !sameRequest(made, request) {
		return nil, errors.New("trustful: the signet that was signed is not the one that was asked for")
	}
	return made, k.Store.Append(ctx, address, Generation{Number: len(all) + 1, Signet: made.Bytes(), Made: k.Now(), Held: true}, Keys{})
}

// TakeBack makes keys of ours for a user who has his himself, and lends his signing key for the one signature by which the new ones
// follow: the trustful mode begins again. His encryption key stays his: mail that is still sealed to it is handed over unopened.
// ErrCustody where the key is not that of his current signet, or that is ours already.
func (k *Keeper) TakeBack(ctx context.Context, address string, signing key.Signing) (*signet.Signet, error) {
	address, release, err := k.own(ctx, address)
	if err != nil {
		return nil, err
	}
	defer release()
	u, err := k.current(ctx, address)
	if err != nil {
		return nil, err
	}
	if !u.held || u.signet.SigningKey() != signing.Public() {
		return nil, ErrCustody
	}
	u.signing = &signing
	return k.make(ctx, address, u.number+1, &u)
}

// own returns the normal form of an address of ours that is a mailbox, locked.
func (k *Keeper) own(ctx context.Context, address string) (normal string, release func(), err error) {
	if normal, err = Normal(address); err != nil {
		return "", nil, err
	}
	if _, err := k.organization(ctx, domainOf(normal)); err != nil {
		return "", nil, err
	}
	mailbox, _, err := k.generations(ctx, normal)
	if err != nil {
		return "", nil, err
	}
	if mailbox != normal {
		return "", nil, fmt.Errorf("%w: a sub-address has the keys of %s", ErrAddress, mailbox)
	}
	release, err = k.making.acquire(ctx, normal)
	return normal, release, err
}

// checkRequest holds a request to what we sign: its owner's signature, and the dialect that everyone reads.
func checkRequest(request *signet.Signet) error {
	if err := request.VerifyRequest(); err != nil {
		return errors.Join(ErrRequest, err)
	}
	if request.Dialect() != signet.A {
		return fmt.Errorf("%w: it is of dialect %v, and we publish dialect A", ErrRequest, request.Dialect())
	}
	return nil
}

// follows holds a request to the signets that its user has had: it follows the last of them, and brings keys that none had.
func follows(request *signet.Signet, all []Generation) error {
	_, custody := request.Custody()
	chained := len(all) > 0 && all[len(all)-1].Current()
	if !chained && custody {
		return fmt.Errorf("%w: there is none, and it says that it follows one", ErrCustody)
	}
	for i, g := range all {
		s, err := parseStored(g)
		if err != nil {
			return err
		}
		if s.SigningKey() == request.SigningKey() || s.EncryptionKey() == request.EncryptionKey() {
			return fmt.Errorf("%w: its keys are those of signet %d", ErrRequest, g.Number)
		}
		if !chained || i < len(all)-1 {
			continue
		}
		if err := request.VerifyCustody(s); err != nil {
			return errors.Join(ErrCustody, err)
		}
	}
	return nil
}

// sameRequest reports whether a signet begins with a request.
func sameRequest(s, request *signet.Signet) bool {
	a, err := s.Fingerprint(signet.Request)
	if err != nil {
		return false
	}
	b, err := request.Fingerprint(signet.Request)
	return err == nil && a == b
}
