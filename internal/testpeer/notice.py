"""Reads one delivery status notification from stdin and prints what it says as JSON.

The reader is Python's email package: nobody who wrote the notices wrote it.
"""
import base64, email, email.policy, email.utils, json, quopri, sys

octets = sys.stdin.buffer.read()
m = email.message_from_bytes(octets, policy=email.policy.compat32)


def one(fields, name):
    got = fields.get_all(name, [])
    if len(got) > 1:
        sys.exit("%s stands %d times" % (name, len(got)))
    return got[0] if got else None


def text(part):
    return part.get_payload(decode=True).decode(part.get_content_charset("ascii"))


def inside(part):
    """What a message/* part holds, decoded: the parser takes every one of them for a message, encoded or not."""
    body = part.get_payload()
    if part.get("Content-Transfer-Encoding", "").lower() != "quoted-printable":
        return body
    octets = quopri.decodestring("".join(x.as_string() for x in body).encode("ascii"))
    return [email.message_from_bytes(octets)]


def whole(messages):
    return b"".join(x.as_bytes() for x in messages).replace(b"\r\n", b"\n")


def dictionary(block):
    seen = {}
    for k, v in block.items():
        if k.lower() in seen:
            sys.exit("%s stands twice" % k)
        seen[k.lower()] = str(v).encode("utf-8", "surrogateescape").decode("utf-8")
    return seen


def blocks(part):
    """The blocks of a status part. Python knows those of RFC 3464 and takes RFC 6533's for a message."""
    got = inside(part)
    if part.get_content_type() == "message/delivery-status":
        return [b for b in got if len(b.keys())]
    raw = whole(got).decode("utf-8")
    return [email.message_from_string(b) for b in raw.split("\n\n") if b.strip()]


if not m.is_multipart() or m.get_content_type() != "multipart/report":
    sys.exit("no multipart/report: " + m.get_content_type())
parts = m.get_payload()
if len(parts) != 3:
    sys.exit("%d parts" % len(parts))
status = [dictionary(b) for b in blocks(parts[1])]
if len(status) != 2:
    sys.exit("%d blocks of status fields" % len(status))
third = parts[2]
returned = whole(inside(third)) if third.get_content_maintype() == "message" else third.get_payload(decode=True)
print(json.dumps({
    "defects": [repr(d) for p in m.walk() for d in p.defects],
    "return_path": one(m, "Return-Path"),
    "from": email.utils.parseaddr(one(m, "From"))[1],
    "to": email.utils.parseaddr(str(one(m, "To")))[1],
    "date": email.utils.parsedate_to_datetime(one(m, "Date")).isoformat(),
    "message_id": one(m, "Message-ID"),
    "auto_submitted": one(m, "Auto-Submitted"),
    "report_type": m.get_param("report-type"),
    "types": [p.get_content_type() for p in parts],
    "encodings": [p.get("Content-Transfer-Encoding", "7bit") for p in parts],
    "encoding": m.get("Content-Transfer-Encoding", "7bit"),
    "ascii": all(c < 128 for c in octets),
    "text": text(parts[0]),
    "message": status[0],
    "recipient": status[1],
    "dates": {k: email.utils.parsedate_to_datetime(v).isoformat()
              for b in status for k, v in b.items() if k.endswith("-date") or k == "will-retry-until"},
    "returned": base64.b64encode(returned.replace(b"\r\n", b"\n")).decode(),
}))
