package seals

// ParseQuestion reads what a gateway asks a helper.
var ParseQuestion = parseQuestion
