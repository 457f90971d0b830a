package setup

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"time"
)

// certificateLife is long: what makes a self-signed certificate good is its signature in the record, which can be taken
// out at any time, and others do not look at dates then (dmtp.md §8.12).
const certificateLife = 10 * 365 * 24 * time.Hour

// rsaBits is what the reference's one suite takes at a fair price.
const rsaBits = 3072

// A keyKind is a kind of certificate: ECDSA for everyone, RSA for libdime, whose only suite wants it.
type keyKind string

const (
	kindECDSA keyKind = "ecdsa"
	kindRSA   keyKind = "rsa"
)

func (k keyKind) generate() (crypto.Signer, error) {
	if k == kindRSA {
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// makeCertificate writes a self-signed certificate for some host names and its key, as PEM. The files must not exist.
func makeCertificate(kind keyKind, hosts []string, now time.Time, certFile, keyFile string) error {
	signer, err := kind.generate()
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: hosts[0]},
		DNSNames:              hosts,
		NotBefore:             now.Add(-time.Hour), // of clocks that are late
		NotAfter:              now.Add(certificateLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return err
	}
	defer clear(private)
	if err := writePEM(keyFile, 0o600, "PRIVATE KEY", private); err != nil {
		return err
	}
	return writePEM(certFile, 0o644, "CERTIFICATE", der)
}

func writePEM(path string, mode os.FileMode, kind string, der []byte) error {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	defer clear(text)
	return writeNew(path, mode, text)
}

// writeNew writes a file that must not exist, and brings it to the disk. The folder is the caller's to sync.
func writeNew(path string, mode os.FileMode, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// readCertificate returns the DER octets of a PEM chain's leaf.
func readCertificate(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: does not begin with a PEM certificate", path)
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return block.Bytes, nil
}
