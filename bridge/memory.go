package bridge

import "runtime/debug"

// large is from how many octets on a message's memory is given back at once.
const large = 16 << 20

// giveBack returns the memory of a large message that is done with. By itself the collector waits until as much again is in use, so
// that a gateway which has seen one message of 100 MB keeps several times that.
func giveBack(octets int64) {
	if octets >= large {
		debug.FreeOSMemory()
	}
}
