package main

var caseCommand = command{
	name:    "case",
	summary: "cases over archived mail",
	sub:     []command{caseStationCommand},
}
