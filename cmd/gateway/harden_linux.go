package main

import "golang.org/x/sys/unix"

// harden keeps a process that holds shares from leaving its memory behind: no core dump, no other process of the user that
// looks in, no page in the swap as far as the limits allow. What cannot be had is done without.
func harden() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	_ = unix.Mlockall(unix.MCL_CURRENT) // not of the future: the runtime reserves more than any limit allows
}
