package signet

import (
	"fmt"

	"dimegate/dmtp/key"
)

// A Kind is the object type number at the head of a signet.
type Kind uint16

const (
	SSR  Kind = 1215 // signet signing request
	Org  Kind = 1776 // organizational signet
	User Kind = 1789 // user signet
)

func (k Kind) String() string {
	switch k {
	case SSR:
		return "signing request"
	case Org:
		return "organizational signet"
	case User:
		return "user signet"
	}
	return fmt.Sprintf("object %d", uint16(k))
}

// A Dialect is one of the three wire forms; see key.Dialect. The zero value is taken for A where we write.
type Dialect = key.Dialect

const (
	A = key.A // libdime: what we write
	B = key.B // magma's dime
	C = key.C // magma's PRIME
)

// A Form is how far a signet is signed. Each form holds the ones before it.
type Form uint8

const (
	Request Form = 1 + iota // up to the user's own signature: what a request is
	Crypto                  // up to the organization's first signature: keys alone
	Full                    // and all about the owner, but not who it is
	ID                      // and the name: domain or address
)

func (f Form) String() string {
	switch f {
	case Request:
		return "ssr"
	case Crypto:
		return "crypto"
	case Full:
		return "full"
	case ID:
		return "id"
	}
	return fmt.Sprintf("form %d", uint8(f))
}

// Field identifiers. The first few mean one thing in an organizational signet and another in the other two kinds.
const (
	FieldSigningKey = 1 // in all kinds; an organization's is the POK

	FieldOrgSecondaryKey  = 2 // SOK
	FieldOrgEncryptionKey = 3
	FieldOrgSignature     = 4

	FieldEncryptionKey  = 2
	FieldAlternateKey   = 3
	FieldCustody        = 4 // chain of custody: by the signing key of the signet before
	FieldUserSignature  = 5
	FieldUserCertified  = 6 // the organization's signature of the user's keys
	FieldName           = 16
	FieldNamed          = 251 // "Undefined-Field": carries its own name
	FieldPhoto          = 252
	FieldFullSignature  = 253
	FieldIdentifier     = 254
	FieldFinalSignature = 255
)

// layerMagic is the first octet of a field 3 that advertises a key of the alternate layer (dmime.md §17.2): it begins no point of
// the curve. libdime looks at no alternate key.
const layerMagic = 0xDA

// What a field's value is.
type valueType uint8

const (
	typeSigningKey valueType = iota
	typeSecondaryKey
	typeEncryptionKey
	typeSignature
	typeText
	typeNamed
	typeImage
	typeIdentifier
	typeOpaque // an identifier that nobody assigned
)

// How a field's length is written.
type width uint8

const (
	fixed64   width = 0 // no length: 64 octets
	width1    width = 1
	width2    width = 2
	width3    width = 3
	widthKeys width = 4 // 2 in dialect A, 1 in B and C
	widthAlt  width = 5 // widthKeys, but 1 in the requests of dialect A, too: libdime's slip, which we have to share
)

// A definition is one row of the catalogue.
type definition struct {
	id       byte
	in       kinds
	name     string
	value    valueType
	width    width
	many     bool // may be repeated
	required bool // by every signature with a higher identifier
}

type kinds uint8

const (
	inOrg kinds = 1 << iota
	inUser
	inRequest
)

func (k Kind) bit() kinds {
	switch k {
	case Org:
		return inOrg
	case User:
		return inUser
	case SSR:
		return inRequest
	}
	return 0
}

// catalogue is every field of every kind of signet: parser, builder and names all read it.
// Source: DIME Specification, signet fields; numbers and widths checked against libdime signet/general.c.
var catalogue = []definition{
	{1, inOrg, "Primary-Organizational-Key", typeSigningKey, width1, false, true},
	{2, inOrg, "Secondary-Organizational-Key", typeSecondaryKey, width1, true, false},
	{3, inOrg, "Encryption-Key", typeEncryptionKey, widthKeys, false, true},
	{4, inOrg, "Organizational-Signature", typeSignature, fixed64, false, true},

	{1, inUser | inRequest, "Signing-Key", typeSigningKey, width1, false, true},
	{2, inUser | inRequest, "Encryption-Key", typeEncryptionKey, widthKeys, false, true},
	{3, inUser | inRequest, "Alternate-Encryption-Key", typeEncryptionKey, widthAlt, true, false},
	{4, inUser | inRequest, "Chain-Of-Custody-Signature", typeSignature, fixed64, false, false},
	{5, inUser | inRequest, "User-Signature", typeSignature, fixed64, false, true},
	{6, inUser, "Organizational-Signature", typeSignature, fixed64, false, true},

	{16, inOrg | inUser, "Name", typeText, width1, false, false},
	{17, inOrg | inUser, "Address", typeText, width1, false, false},
	{18, inOrg | inUser, "Province", typeText, width1, false, false},
	{19, inOrg | inUser, "Country", typeText, width1, false, false},
	{20, inOrg | inUser, "Postal-Code", typeText, width1, false, false},
	{21, inOrg | inUser, "Phone-Number", typeText, width1, true, false},
	{22, inOrg | inUser, "Language", typeText, width1, false, false},
	{23, inOrg | inUser, "Currency", typeText, width1, false, false},
	{24, inOrg | inUser, "Cryptocurrency", typeText, width1, false, false},
	{25, inOrg | inUser, "Motto", typeText, width1, false, false},
	{26, inOrg | inUser, "Extensions", typeText, width1, false, false},
	{27, inOrg | inUser, "Message-Size-Limit", typeText, width1, false, false},

	{93, inUser, "Supported-Codecs", typeText, width1, false, false},
	{94, inUser, "Title", typeText, width1, false, false},
	{95, inUser, "Employer", typeText, width1, false, false},
	{96, inUser, "Gender", typeText, width1, false, false},
	{97, inUser, "Alma-Mater", typeText, width1, false, false},
	{98, inUser, "Supervisor", typeText, width1, false, false},
	{99, inUser, "Political-Party", typeText, width1, false, false},

	{160, inOrg | inUser, "Website", typeText, width2, false, false},

	{200, inOrg, "Contact-Abuse", typeText, width2, false, false},
	{201, inOrg, "Contact-Admin", typeText, width2, false, false},
	{202, inOrg, "Contact-Support", typeText, width2, false, false},
	{203, inOrg, "Web-Access-Host", typeText, width2, false, false},
	{204, inOrg, "Web-Access-Location", typeText, width2, false, false},
	{205, inOrg, "Web-Access-Certificate", typeText, width2, false, false},
	{206, inOrg, "Mail-Access-Host", typeText, width2, false, false},
	{207, inOrg, "Mail-Access-Certificate", typeText, width2, false, false},
	{208, inOrg, "Onion-Access-Host", typeText, width2, false, false},
	{209, inOrg, "Onion-Access-Certificate", typeText, width2, false, false},
	{210, inOrg, "Onion-Delivery-Host", typeText, width2, false, false},
	{211, inOrg, "Onion-Delivery-Certificate", typeText, width2, false, false},

	{200, inUser, "Alternate-Address", typeText, width2, false, false},
	{201, inUser, "Resume", typeText, width2, false, false},
	{202, inUser, "Endorsements", typeText, width2, true, false},

	{251, inOrg | inUser, "Undefined-Field", typeNamed, width2, true, false},
	{252, inOrg | inUser, "Photo", typeImage, width3, false, false},
	{253, inOrg | inUser, "Full-Signature", typeSignature, fixed64, false, true},
	{254, inOrg | inUser, "Signet-Identifier", typeIdentifier, width1, false, true},
	{255, inOrg | inUser, "Identifiable-Signature", typeSignature, fixed64, false, true},
}

// A grammar is the rows of one kind by identifier; nil where none is assigned.
type grammar [256]*definition

var orgGrammar, userGrammar, requestGrammar = grammarOf(inOrg), grammarOf(inUser), grammarOf(inRequest)

func grammarOf(in kinds) *grammar {
	var g grammar
	for i := range catalogue {
		if d := &catalogue[i]; d.in&in != 0 {
			if g[d.id] != nil {
				panic("signet: two rows for one field") // a fault of this file
			}
			g[d.id] = d
		}
	}
	return &g
}

func (k Kind) grammar() *grammar {
	switch k {
	case Org:
		return orgGrammar
	case User:
		return userGrammar
	case SSR:
		return requestGrammar
	}
	return nil
}

// reserved are the rows of identifiers in the informational ranges that nobody assigned. A signet that carries one is read
// as long as its signatures hold, so that a later specification does not break us; libdime refuses it, so none is written.
var (
	reserved1 = &definition{name: "Unassigned", value: typeOpaque, width: width1, many: true}
	reserved2 = &definition{name: "Unassigned", value: typeOpaque, width: width2, many: true}
)

// lookup returns the row for an identifier in a kind of signet, or nil.
func (k Kind) lookup(id byte) *definition {
	if d := k.grammar()[id]; d != nil || k == SSR {
		return d
	}
	switch {
	case id >= 16 && id < 160:
		return reserved1
	case id >= 160 && id < FieldNamed:
		return reserved2
	}
	return nil
}

// octets is the number of octets in the length of d's field.
func (d *definition) octets(k Kind, dialect Dialect) int {
	switch d.width {
	case widthAlt:
		if dialect == A && k != SSR {
			return 2
		}
		return 1
	case widthKeys:
		if dialect == A {
			return 2
		}
		return 1
	}
	return int(d.width)
}

// cryptoField is the identifier of the signature that closes the crypto form.
func (k Kind) cryptoField() byte {
	if k == Org {
		return FieldOrgSignature
	}
	return FieldUserCertified
}

// bound is the identifier of the signature that closes form f, and whether the kind has that form.
func (k Kind) bound(f Form) (byte, bool) {
	switch {
	case f == Request && k != Org:
		return FieldUserSignature, true
	case f == Crypto && k != SSR:
		return k.cryptoField(), true
	case f == Full && k != SSR:
		return FieldFullSignature, true
	case f == ID && k != SSR:
		return FieldFinalSignature, true
	}
	return 0, false
}

// FieldTitle is the name of a field, as the specification calls it.
func FieldTitle(k Kind, id byte) string {
	if k.grammar() == nil {
		return "?"
	}
	if d := k.lookup(id); d != nil {
		return d.name
	}
	return "?"
}

// FieldByTitle finds the identifier of an informational field (16 to 252) by the name that FieldTitle gives it.
func FieldByTitle(k Kind, title string) (byte, bool) {
	for _, d := range catalogue {
		if d.in&k.bit() != 0 && d.name == title && d.id >= FieldName && d.id < FieldFullSignature {
			return d.id, true
		}
	}
	return 0, false
}
