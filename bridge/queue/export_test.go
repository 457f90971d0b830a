package queue

// EncodeEnvelope is the stored form of an envelope.
func EncodeEnvelope(e Envelope) []byte { return e.encode() }
