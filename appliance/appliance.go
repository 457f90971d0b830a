// Package appliance is the one place that wires, starts and stops everything: it opens the vault, joins the houses
// through the small interfaces that each declares, and runs the listeners and the queue.
package appliance
