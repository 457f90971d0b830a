// Package dmtp is the Dark Mail Transfer Protocol without its sockets: command grammar, replies, names, limits.
//
// Two grammars exist. The one client that ever spoke on a network, libdime's signet resolver, sends positional arguments
// (SGNT <name> [fingerprint]); libdime's second, unused command library writes named ones (SGNT USER=<name>
// FINGERPRINT=[fingerprint]). Parse reads both, line by line; what this package writes is positional.
package dmtp
