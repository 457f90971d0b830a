# Python's imaplib on the case mailbox: reads everything, tries every write, and tells what came, as JSON.
import hashlib, imaplib, json, ssl, sys

port, ca, user, password = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
context = ssl.create_default_context(cafile=ca)

out = {"bodies": {}, "halves": {}, "refused": {}, "search": {}}
c = imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=context)
try:
    c.login(user, password)
except imaplib.IMAP4.error as e:
    print(json.dumps({"login": str(e)}))
    sys.exit(0)
out["login"] = "OK"

typ, data = c.select("INBOX", readonly=True)
typ, data = c.uid("SEARCH", None, "ALL")
uids = data[0].split()
for uid in uids:
    whole = c.uid("FETCH", uid, "(BODY.PEEK[])")[1][0][1]
    head = c.uid("FETCH", uid, "(BODY.PEEK[HEADER])")[1][0][1]
    text = c.uid("FETCH", uid, "(BODY.PEEK[TEXT])")[1][0][1]
    out["bodies"][uid.decode()] = hashlib.sha256(whole).hexdigest()
    out["halves"][uid.decode()] = hashlib.sha256(head + text).hexdigest()
    assert c.uid("FETCH", uid, "(ENVELOPE BODYSTRUCTURE)")[0] == "OK"
for keys in (["SUBJECT", "plain"], ["LARGER", "1000"], ["SINCE", "1-Mar-2026"], ["TEXT", "zzzzzzzz"]):
    out["search"][" ".join(keys)] = c.uid("SEARCH", None, *keys)[0]

def attempt(name, f):
    try:
        typ, data = f()
        out["refused"][name] = typ
    except imaplib.IMAP4.error as e:
        out["refused"][name] = "error: " + str(e)

for mode in (True, False):
    try:
        c.select("INBOX", readonly=mode)
    except imaplib.IMAP4.readonly:
        out["readonly"] = True  # SELECT said so, and imaplib would send no write any more
        c.is_readonly = True
    n = " (EXAMINE)" if mode else ""
    attempt("STORE" + n, lambda: c._simple_command("STORE", "1", "+FLAGS", "(\\Deleted)"))
    attempt("UID STORE" + n, lambda: c._simple_command("UID", "STORE", "1", "FLAGS", "(\\Seen)"))
    attempt("EXPUNGE" + n, lambda: c._simple_command("EXPUNGE"))
    attempt("COPY" + n, lambda: c._simple_command("COPY", "1", "INBOX"))
    attempt("UID COPY" + n, lambda: c._simple_command("UID", "COPY", "1", "INBOX"))
    attempt("UID MOVE" + n, lambda: c._simple_command("UID", "MOVE", "1", "INBOX"))
attempt("APPEND", lambda: c.append("INBOX", None, None, b"Subject: planted\r\n\r\nx\r\n" * 1000))
attempt("CREATE", lambda: c.create("Trash"))
attempt("DELETE", lambda: c.delete("INBOX"))
attempt("RENAME", lambda: c.rename("INBOX", "Other"))
attempt("SUBSCRIBE", lambda: c.subscribe("INBOX"))
attempt("UNSUBSCRIBE", lambda: c.unsubscribe("INBOX"))
attempt("SETACL", lambda: c.setacl("INBOX", "rita", "lrswipkxtecda"))
attempt("DELETEACL", lambda: c.deleteacl("INBOX", "rita"))
attempt("SETQUOTA", lambda: c.setquota("INBOX", "(STORAGE 1)"))
attempt("SETANNOTATION", lambda: c.setannotation("INBOX", "/comment", "(x y)"))
typ, data = c.select("INBOX", readonly=True)
out["exists"] = int(data[0])
out["flags"] = sum(1 for r in c.fetch("1:*", "(FLAGS)")[1] if b"FLAGS ()" in r)
out["close"] = c.close()[0]
c.logout()
print(json.dumps(out))
