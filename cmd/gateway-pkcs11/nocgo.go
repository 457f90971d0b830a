//go:build !cgo

// Command gateway-pkcs11 needs cgo: a PKCS#11 module is a C library. Build it where there is a C compiler.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "gateway-pkcs11: built without cgo, which a PKCS#11 module needs: build it with a C compiler and CGO_ENABLED=1")
	os.Exit(2)
}
