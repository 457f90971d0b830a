package main

// A change says what the baseline does to a message.
type change struct {
	header string // what afterPostfix does, too
	wire   string // what Postfix's client and Dovecot do beyond it, told here only
}

func (c change) String() string { return c.header + c.wire }

// changed names every message that does not pass the baseline as it was sent. None is refused.
var changed = func() map[string]change {
	m := map[string]change{
		"error_emails-content_transfer_encoding_empty":      {header: "Bcc taken out"},
		"error_emails-multiple_references_with_one_invalid": {header: "an empty line before what is no field"},
		"plain_emails-raw_email_incorrect_header":           {header: "an empty line before what is no field"},

		// our own
		"bcc":               {header: "Bcc taken out"},
		"exchange-headers":  {header: "a blank before a colon taken out"},
		"fold-first":        {header: "an empty line before what is no field"},
		"garbage-in-header": {header: "an empty line before what is no field"},
		"no-separator":      {header: "an empty line before what is no field"},
		"all-octets":        {wire: "a bare CR becomes a blank in Postfix, NUL becomes 0x80 in Dovecot"},
		"bare-cr":           {wire: "a bare CR becomes a blank"},
		"mixed-ends":        {wire: "a bare CR becomes a blank, CR CR LF one line end"},
		"smuggle":           {wire: "a bare CR becomes a blank"},
		"cr-cr-lf":          {wire: "CR CR LF becomes one line end"},
		"final-cr":          {wire: "CR CR LF becomes one line end"},
		"long-header":       {wire: "a line over 998 octets is cut by CRLF and a blank"},
		"long-line":         {wire: "a line over 998 octets is cut by CRLF and a blank"},
		"nul":               {wire: "NUL becomes 0x80"},
		"nul-header":        {wire: "a field is cut at NUL"},

		// those that shapes makes
		"header-line-1MB":    {wire: "a line over 998 octets is cut by CRLF and a blank"},
		"body-line-1MB":      {wire: "a line over 998 octets is cut by CRLF and a blank"},
		"header-every-octet": {wire: "a field is cut at NUL"},
		"body-every-octet":   {wire: "NUL becomes 0x80"},
		"body-nul":           {wire: "NUL becomes 0x80"},
		"ends-lf":            {wire: "a bare LF ends a line"},
		"ends-cr":            {wire: "a bare CR becomes a blank, CR CR LF one line end"},
		"ends-mixed":         {wire: "a bare LF ends a line, a bare CR becomes a blank"},
	}
	for _, name := range returnPath {
		m[name] = change{header: "Return-Path taken out"}
	}
	for _, name := range mailboxLine {
		m[name] = change{header: "the line From of an mbox file becomes a field; Return-Path, if any, taken out"}
	}
	return m
}()

var returnPath = []string{
	"attachment_emails-attachment_with_quoted_filename",
	"error_emails-bad_date_header2",
	"error_emails-content_transfer_encoding_7-bit",
	"error_emails-content_transfer_encoding_plain", // and Content-Length
	"error_emails-content_transfer_encoding_qp_with_space",
	"error_emails-content_transfer_encoding_text-html", // and Content-Length
	"error_emails-content_transfer_encoding_with_8bits",
	"error_emails-content_transfer_encoding_with_semi_colon", // and Content-Length
	"error_emails-content_transfer_encoding_x_uuencode",
	"error_emails-empty_group_lists",
	"error_emails-empty_in_reply_to",
	"error_emails-encoding_madness",
	"error_emails-missing_body",
	"error_emails-missing_content_disposition",
	"error_emails-new_line_in_to_header",
	"error_emails-trademark_character_in_subject",
	"error_emails-weird_to_header",
	"mime_emails-raw_email4",
	"mime_emails-raw_email_with_mimepart_without_content_type",
	"mime_emails-two_from_in_message",
	"multi_charset-japanese_attachment_long_name",
	"multipart_report_emails-multipart_report_multiple_status",
	"multipart_report_emails-report_422",
	"multipart_report_emails-report_530",
	"plain_emails-basic_email",
	"plain_emails-basic_email_lf",
	"plain_emails-raw_email10",
	"plain_emails-raw_email5",
	"plain_emails-raw_email6",
	"plain_emails-raw_email_bad_time",
	"plain_emails-raw_email_multiple_from",
	"plain_emails-raw_email_reply",
	"plain_emails-raw_email_trailing_dot",
	"plain_emails-raw_email_with_at_display_name",
	"plain_emails-raw_email_with_bad_date",
}

var mailboxLine = []string{
	"attachment_emails-attachment_pdf",
	"attachment_emails-attachment_pdf_lf",
	"attachment_emails-attachment_pdf_non_ascii",
	"attachment_emails-attachment_pdf_non_ascii_lf",
	"attachment_emails-attachment_with_base64_encoded_name",
	"attachment_emails-attachment_with_encoded_name",
	"mime_emails-raw_email11",
	"mime_emails-raw_email2",
	"mime_emails-raw_email_with_binary_encoded",
	"mime_emails-raw_email_with_illegal_boundary",
	"mime_emails-raw_email_with_multipart_mixed_quoted_boundary",
	"mime_emails-raw_email_with_nested_attachment",
	"mime_emails-raw_email_with_quoted_illegal_boundary",
	"plain_emails-mix_caps_content_type",
	"plain_emails-raw_email",
	"plain_emails-raw_email8",
	"plain_emails-raw_email_double_at_in_header",
	"plain_emails-raw_email_simple",
	"plain_emails-raw_email_string_in_date_field",
	"plain_emails-raw_email_with_partially_quoted_subject",
	"rfc2822-example13",
	"rfc2822-example14",
}

// taken names the messages of our own that carry instructions for a gateway, and what of them is taken out. Of the corpus there is
// none.
var taken = map[string]string{
	"exchange-headers": "X-DIME-Verified",
	"bcc":              "X-DIME-Require",
}
