package key

import "fmt"

// A Class is the kind of fault in a key, an armor, a signet or a management record. It is an error, so that errors.Is
// finds it inside the one that says where.
type Class string

func (c Class) Error() string { return "dime: " + string(c) }

// The classes, for key files, armor and signets alike.
const (
	ErrShort      Class = "short"         // fewer octets than a header
	ErrType       Class = "type"          // an object type that is unknown, or not the one wanted
	ErrLength     Class = "length"        // the header's length is not that of the data
	ErrTruncated  Class = "truncated"     // a field runs past the end
	ErrTrailing   Class = "trailing"      // octets after the last field
	ErrUnknown    Class = "unknown-field" // an identifier that is not assigned
	ErrOrder      Class = "order"         // identifiers do not ascend
	ErrDuplicate  Class = "duplicate"     // a second field where one is allowed
	ErrBadField   Class = "bad-field"     // a value that its field cannot have
	ErrKeyFormat  Class = "key-format"    // a key of a wrong length or prefix
	ErrKeyValue   Class = "key-value"     // a key that is no usable point or scalar
	ErrText       Class = "text"          // text that is no UTF-8, or has control characters
	ErrIdentifier Class = "identifier"    // an identifier that is no domain or address, or not the one asked for
	ErrImage      Class = "image"         // a photo that is no PNG
	ErrIncomplete Class = "incomplete"    // a field is missing that the level demands
	ErrSignature  Class = "signature"     // a signature that does not hold
	ErrPOK        Class = "pok"           // the primary key is not one of the record's
	ErrCustody    Class = "custody"       // the chain of custody is broken
	ErrDialect    Class = "dialect"       // no dialect, or a mixture
	ErrArmor      Class = "armor"         // text armor that is not well formed
	ErrCRC        Class = "crc"           // armor without its checksum, or with a wrong one
	ErrTooLarge   Class = "too-large"     // above our own limit
	ErrDecrypt    Class = "decrypt"       // an encrypted key file that does not open
)

// A SyntaxError says where octets break a format. It never quotes them.
type SyntaxError struct {
	Class  Class
	Offset int // octets from the start of the object; 0 where it is no certain place
	Reason string
}

func (e *SyntaxError) Error() string {
	if e.Offset == 0 {
		return fmt.Sprintf("%s: %s", string(e.Class), e.Reason)
	}
	return fmt.Sprintf("%s at octet %d: %s", string(e.Class), e.Offset, e.Reason)
}

func (e *SyntaxError) Unwrap() error { return e.Class }

func syntaxf(c Class, offset int, format string, a ...any) error {
	return &SyntaxError{Class: c, Offset: offset, Reason: fmt.Sprintf(format, a...)}
}
