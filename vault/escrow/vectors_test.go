package escrow

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"dimegate/internal/vectors"
)

// A hexed value is octets that the file writes in hexadecimal. It knows whether anyone looked at it: see unused.
type hexed struct {
	b    []byte
	used bool
}

func (h *hexed) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	var err error
	h.b, err = hex.DecodeString(s)
	return err
}

func (h *hexed) octets() []byte {
	h.used = true
	return h.b
}

type vectorPartial struct {
	Index, Record      int
	Rho, K, Hhat, Uhat hexed
	E                  hexed `json:"e_i"`
	F                  hexed `json:"f_i"`
	U                  hexed `json:"u_i"`
	Partial            hexed
}

type vectorCombine struct {
	Lambda  []hexed
	Set     []uint16
	Results []struct {
		K, P   hexed
		Record int
	}
}

type vectorRecord struct {
	Name             string
	CustodianAddress string `json:"custodian_address"`
	Class            uint16
	Kind             uint8
	Month            uint16
	LeafTime         int64 `json:"leaf_time"`

	K, Archive, Body, C, Custodian, E, Envelope, F, Label, Mask, Nonce, Octets, Outer, R, Record, Rho, S, Salt, U, Ubar, W, Wbar, Wrap hexed

	BodyDigest       hexed `json:"body_digest"`
	CustodianSalt    hexed `json:"custodian_salt"`
	HR               hexed `json:"h_r"`
	IntakeCommitment hexed `json:"intake_commitment"`
	IntakeLeaf       hexed `json:"intake_leaf"`
	IntakePublic     hexed `json:"intake_public"`
	ShredKey         hexed `json:"shred_key"`
	ShredKeyID       hexed `json:"shred_key_id"`
	WrapDigest       hexed `json:"wrap_digest"`
}

type vectorNegative struct {
	Name, Op, Expect, Why string
	Epoch, Record         int
	Dealer, Index         uint16
	Now                   int64
	Set                   []uint16
	Commitments           []hexed
	U                     []hexed `json:"u_i"`
	Wraps                 []hexed
	CaseDigest            *hexed `json:"case_digest"`
	ExpectedLabel         *hexed `json:"expected_label"`
	ShredKey              *hexed `json:"shred_key"`

	K, Manifest, Outer, Partial, Wrap, X *hexed
}

type vectorDeal struct {
	Dealer        uint16
	Coefficients  []hexed
	Commitments   []hexed
	Rho           []hexed
	Deal          hexed
	DealDigest    hexed `json:"deal_digest"`
	DealStatement hexed `json:"deal_statement"`
	Subshares     []struct {
		To        uint16
		Q         hexed
		Plaintext hexed `json:"subshare_plaintext"`
	}
}

// vectorFile is the file of vectors, every key of it.
type vectorFile struct {
	Format, Note string
	Suite        Suite
	Hashes       struct {
		Generator hexed
		Order     hexed `json:"order_le"`
		D         []struct {
			Name      string
			Data, Out hexed
		}
		H1 []struct{ Point, Out hexed }
		G  []struct {
			Dst      string
			Msg, Out hexed
		} `json:"hash_to_group"`
		S []struct {
			Dst      string
			Msg, Out hexed
		} `json:"hash_to_scalar"`
	}
	Officers []struct {
		Index             uint16
		Person, Recipient string
		AgeIdentity       string `json:"age_identity"`
		Ed25519           hexed
		Seed              hexed `json:"ed25519_seed"`
	}
	Ceremony struct {
		M, N, Purpose                  int
		Created                        int64
		AttestedAt                     int64 `json:"attested_at"`
		Org                            string
		Coefficients, Commitments, Rho []hexed
		EpochDigest                    hexed `json:"epoch_digest"`
		EpochRecord                    hexed `json:"epoch_record"`
		KeyID                          hexed `json:"key_id"`
		KeyRecord                      hexed `json:"key_record"`
		Gbar, H                        hexed
		AgeFile                        hexed `json:"share_1_age_file"`
		Shares                         []struct {
			Index          uint16
			Attestation, X hexed
			VK             hexed `json:"vk"`
			Plaintext      hexed `json:"share_file_plaintext"`
		}
	}
	Records []vectorRecord
	Case    struct {
		Basis, Requester     string
		Now, Opened, Expires int64
		PrivateKey           hexed `json:"case_private_key"`
		Digest, Manifest     hexed
		Request              hexed `json:"request_statement"`
		RequesterSeed        hexed `json:"requester_ed25519_seed"`
	}
	Partials []vectorPartial
	Batches  []struct {
		Index                                  uint16
		ApprovedAt                             int64 `json:"approved_at"`
		Ephemeral                              hexed `json:"ephemeral_private_key"`
		Aad, Approval, Info, Plaintext, Sealed hexed
	} `json:"partial_batches"`
	Combine vectorCombine
	Reshare struct {
		CaseDigest   hexed `json:"case_digest"`
		CaseManifest hexed `json:"case_manifest"`
		EpochDigest  hexed `json:"epoch_digest"`
		EpochRecord  hexed `json:"epoch_record"`
		PlanDigest   hexed `json:"plan_digest"`
		Plan         hexed
		Set          []uint16
		Lambda       []hexed
		Commitments  []hexed
		Deals        []vectorDeal
		Partials     []vectorPartial
		Combine      vectorCombine
		Shares       []struct {
			Index uint16
			VK    hexed `json:"vk"`
			X     hexed
		}
	}
	Negative []vectorNegative
	Hedge    struct {
		Why              string
		K, Label, R, Rho hexed
	}
}

func readVectors(tb testing.TB) *vectorFile {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "testdata", "vectors", "escrow", "vectors.json"))
	if err != nil {
		tb.Fatal(err)
	}
	v := vectors.Decode[vectorFile](tb, b, "escrow")
	if v.Format != "dimegate escrow vectors 1" || v.Suite != R255 || v.Note == "" {
		tb.Fatalf("vectors of the form %q, suite %d", v.Format, v.Suite)
	}
	return &v
}

// unused lists the values that no test looked at.
func unused(path string, v reflect.Value) (list []string) {
	if h, ok := v.Addr().Interface().(*hexed); ok {
		if !h.used {
			list = append(list, path)
		}
		return list
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			list = append(list, unused(path+"."+v.Type().Field(i).Name, v.Field(i))...)
		}
	case reflect.Slice:
		for i := range v.Len() {
			list = append(list, unused(path+"[]", v.Index(i))...)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			list = append(list, unused(path, v.Elem())...)
		}
	}
	return list
}
