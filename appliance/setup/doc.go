// Package setup makes an installation: data folder, seals, organisational keys and signets, certificates and the
// configuration file. It writes everything or nothing, and never over what is there.
package setup
