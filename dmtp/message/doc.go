// Package message writes and reads D/MIME messages of number 1847: one author, one origin, one destination, one recipient, each
// of whom can open what he must see and no more. Octets in, octets out; keys and signets are given, and their owners' names are
// compared with what the author wrote. The format is that of libdime; where we are stricter than its reader, it is said.
//
// Writing: Compose as the author; then Parse, Open, Verify and SignOrigin as the origin. Reading: Parse, Open, Verify, Content.
package message
