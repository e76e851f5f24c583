# SPDX-License-Identifier: BSD-3-Clause
# odd-file-names.py COMMAND...: runs every verb of qcow2-img with names of
# files, options and values that would do something to a terminal, and fails
# if one of these bytes is printed. In the current directory.

import json, os, re, subprocess, sys

TOOL = sys.argv[1:]
ODD = b"a\x1b[31m\x7f\x9b\xc3\xa9\xc2\x9bz"
HARMFUL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")

VERBS = """info|info --output=json|info --backing-chain|check
check --output=json|check -r all|map|map --output=json|snapshot -l
snapshot -l --output=json|measure|measure -O qcow2|chain|chain --output=json
bench -c 1|convert -O raw|convert -O qcow2|create -f qcow2|create -f raw
commit|rebase -u|rebase|resize|amend|compare|dd|snapshot -c|snapshot -a
snapshot -d|snapshot save-state x|snapshot load-state x|help|unknown"""

# ODD stands for the odd name.
ARGS = """ODD|ODD good|good ODD|good good ODD|if=ODD|if=good of=ODD/ODD
if=good of=ODD|if=good of=new bs=ODD|-b ODD -F qcow2 overlay|-o ODD good
-o ODD=1 good 1M|-o backing_file=ODD,backing_fmt=qcow2 new1|--ODD good
good ODD/ODD|ODD/ODD good|ODD/ODD|ODD/ODD 1M|ODD/a.img 1M
-b ODD -F ODD new2|-b ODD/img -F qcow2 ODD/new3|-f ODD good|-O ODD good new4
--output=ODD good|--allow=ODD good|--source-backing=ODD overlay|-l ODD good new5
-l snapshot.id=ODD good new6|ODD/img|imgODD|ODD/img ODD/copy|imgODD copyODD
--undo=ODD.undo imgODD|ODD imgODD|good imgODD|--size=ODD|-m ODD good"""


def words(text):
    return text.replace("\n", "|").split("|")


subprocess.run(TOOL + ["snapshot", "-c", "sn", "good"], check=True)
os.mkdir(ODD)
with open("good", "rb") as f:
    content = f.read()
for name in ODD + b"/img", b"img" + ODD:
    with open(name, "wb") as f:
        f.write(content)
nr = nr_json = 0
for verb in words(VERBS):
    for args in words(ARGS):
        argv = [a.encode().replace(b"ODD", ODD) for a in args.split()]
        p = subprocess.run(TOOL + verb.split() + argv,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
        text = p.stdout + p.stderr
        assert not HARMFUL.search(text), (verb, args, text)
        text.decode() # is UTF-8
        assert p.returncode >= 0, (verb, args, text)
        if "json" in verb and p.returncode == 0:
            json.loads(p.stdout)
            nr_json += 1
        nr += 1
print(f"{nr} commands, {nr_json} of them with JSON")
assert nr > 800 and nr_json > 5
