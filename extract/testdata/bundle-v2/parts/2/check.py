#!/usr/bin/env python3
"""Checks a logvault bundle (format version 1) without logvault.

    python3 check.py VERIFIER-KEY        run in the bundle's folder

VERIFIER-KEY is the public key of the ledger, NAME+HASH+KEY. Get it from the
operator over another channel than the bundle. Needs Python 3.6 and openssl.
Run "sha256sum -c SHA256SUMS" first. What is checked here:
  1. the signature of ledger/checkpoint (Ed25519, by openssl);
  2. that each line of ledger/entries.jsonl is in the ledger (RFC 6962);
  3. that each line in lines/ stood in the segment its ledger entry describes;
  4. that request.json is what the ledger recorded before the search.
The format is described in docs/FORMAT-bundle.md of logvault.
"""
import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile


def sha(data):
    return hashlib.sha256(data).digest()


def fail(text):
    sys.exit("FAILED: " + text)


def signed_head(vkey):
    """Returns size and root of the checkpoint, its signature verified."""
    name, key_hash, key = vkey.split("+", 2)
    key = base64.b64decode(key)
    note = open("ledger/checkpoint", "rb").read()
    text, _, signatures = note.rpartition(b"\n\n")
    text += b"\n"
    for line in signatures.decode().splitlines():
        dash, signer, blob = line.split(" ")
        blob = base64.b64decode(blob)
        if signer == name and blob[:4].hex() == key_hash and key[0] == 1:
            with tempfile.TemporaryDirectory() as folder:
                def temp(file, data):
                    path = os.path.join(folder, file)
                    open(path, "wb").write(data)
                    return path
                subprocess.run(
                    ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin",
                     "-inkey", temp("key", bytes.fromhex("302a300506032b6570032100") + key[1:]),
                     "-in", temp("text", text), "-sigfile", temp("sig", blob[4:])],
                    check=True, stdout=subprocess.DEVNULL)
            lines = text.decode().split("\n")
            return int(lines[1]), base64.b64decode(lines[2])
    fail("the checkpoint has no signature by this key")


def included(root, size, index, leaf, proof):
    """RFC 9162 section 2.1.3.2."""
    if index >= size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = sha(b"\1" + p + r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = sha(b"\1" + r + p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def hashes(text):
    data = base64.b64decode(text)
    return iter([data[i:i + 32] for i in range(0, len(data), 32)])


def line_root(count, leaves_known, leaves, nodes):
    """The root over blocks of 16 lines, from known leaves and the proof's hashes."""
    touched = sorted({i // 16 for i in leaves_known})

    def tree(lo, hi):
        if not any(lo <= b < hi for b in touched):
            return next(nodes)
        if hi - lo == 1:
            block = range(16 * lo, min(16 * hi, count))
            return sha(b"\2" + b"".join(leaves_known[i] if i in leaves_known else next(leaves) for i in block))
        half = 1
        while 2 * half < hi - lo:
            half *= 2
        left = tree(lo, lo + half)
        return sha(b"\1" + left + tree(lo + half, hi))

    root = tree(0, (count + 15) // 16)
    if next(leaves, None) or next(nodes, None):
        fail("a line proof is too long")
    return root


def split(data):
    """Splits at LF only; the last line may lack it."""
    lines = data.split(b"\n")
    return [x + b"\n" for x in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    size, root = signed_head(sys.argv[1])
    entries, requests = {}, []
    with open("ledger/entries.jsonl", "rb") as texts, open("ledger/proofs.jsonl") as proofs:
        for text, proof in zip(texts, proofs):
            proof = json.loads(proof)
            path = [bytes.fromhex(h) for h in proof["proof"]]
            if not included(root, size, proof["index"], sha(b"\0" + text[:-1]), path):
                fail("ledger entry %d is not in the ledger" % proof["index"])
            entry = entries[proof["index"]] = json.loads(text)
            if entry["type"] == "request":
                requests.append(entry["commit"])
    commit = sha(open("request.salt", "rb").read() + open("request.json", "rb").read()).hex()
    if commit not in requests:
        fail("request.json is not the request that the ledger recorded")
    total, ends = 0, {}
    for segment in json.load(open("manifest.json"))["searched"]:
        entry = entries[segment["entry"]]
        if entry["object"] != segment["object"]:
            fail("segment %d: not the object of its ledger entry" % segment["entry"])
        d = segment.get("disclosed")
        if not d:
            continue
        if d["at"] != ends.get(d["file"], 0):
            fail("segment %d: its lines are not the next ones in %s" % (segment["entry"], d["file"]))
        ends[d["file"]] = d["at"] + d["size"]
        with open(d["file"], "rb") as f:
            f.seek(d["at"])
            lines = split(f.read(d["size"]))
        numbers = d["lines"]
        if len(lines) != len(numbers) or numbers != sorted(set(numbers)) or numbers[-1] >= entry["lines"]:
            fail("segment %d: wrong number of lines" % segment["entry"])
        salts = base64.b64decode(d["salts"])
        known = {n: sha(b"\0" + salts[16 * k:16 * k + 16] + line)
                 for k, (n, line) in enumerate(zip(numbers, lines))}
        if line_root(entry["lines"], known, hashes(d["leaves"]), hashes(d["nodes"])).hex() != entry["root"]:
            fail("segment %d: its lines do not lead to the root in the ledger" % segment["entry"])
        total += len(lines)
    for name in os.listdir("lines"):
        if os.path.getsize("lines/" + name) != ends.get("lines/" + name):
            fail("lines/%s holds what no segment accounts for" % name)
    print("OK: %d lines, each proven to stand in the ledger of %d entries" % (total, size))


main()
