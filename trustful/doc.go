// Package trustful is the users' agent in the account mode of that name: it makes, publishes, rotates and destroys the
// keys of mailboxes, seals what they send and opens what they get, and remembers the keys of those they write to. It sees
// plaintext and user keys; it never sees an organisation's keys, and the organisation's agent never sees what it sees.
package trustful
