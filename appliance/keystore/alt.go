package keystore

import (
	"fmt"
	"strings"

	"dimegate/appliance/config"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

// layerModes are the names of alt.mode.
var layerModes = map[string]message.LayerMode{"off": message.LayerOff, "opportunistic": message.LayerOpportunistic, "required": message.LayerRequired}

// Layer is the checked [alt] table in trustful's words. An error names a suite that this program has not: the configuration alone
// cannot know.
func Layer(a config.Alt) (trustful.Layer, error) {
	suites, err := suitesOf(a)
	if err != nil {
		return trustful.Layer{}, err
	}
	l := trustful.Layer{Always: a.Mode == "required", For: func(domain string) message.Layer {
		return message.Layer{Mode: layerModes[a.ModeFor(domain)], Suites: suites, Bucket: a.Bucket}
	}}
	if a.Mode != "off" {
		l.Offer = message.OfferedOf(suites)
	}
	return l, nil
}

func suitesOf(a config.Alt) ([]message.SuiteID, error) {
	list := []message.SuiteID{} // not nil, which would be all
	for _, text := range a.Suites {
		id, err := message.ParseSuite(text)
		if err != nil {
			var all []string
			for _, id := range message.Suites() {
				all = append(all, id.Digits())
			}
			return nil, fmt.Errorf("alt.suites: %q is none of the suites that this program has: %s", text, strings.Join(all, ", "))
		}
		list = append(list, id)
	}
	return list, nil
}

// LayerPolicy is what an organisation's signet says of the [alt] table, in the field 251 message.PolicyField; "" for nothing.
func LayerPolicy(a config.Alt) (string, error) {
	suites, err := suitesOf(a)
	if err != nil || a.Mode == "off" {
		return "", err
	}
	return message.Layer{Mode: layerModes[a.Mode], Suites: suites}.Policy(), nil
}

// PolicyFields is LayerPolicy as a field of a signet.
func PolicyFields(a config.Alt) ([]signet.Field, error) {
	text, err := LayerPolicy(a)
	if err != nil || text == "" {
		return nil, err
	}
	return []signet.Field{{ID: signet.FieldNamed, Name: message.PolicyField, Value: []byte(text)}}, nil
}
