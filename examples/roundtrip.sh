#!/bin/sh
# Round-trip a photograph with curl: examples/roundtrip.sh photo.jpg [URL]. Writes photo.cdc and photo.png beside it.
set -eu
photo=$1
url=${2:-http://127.0.0.1:8000}
name=${photo%.*}
curl -sSf --data-binary "@$photo" -H 'Content-Type: image/*' "$url/encode?quality=50" -o "$name.cdc"
curl -sSf --data-binary "@$name.cdc" -H 'Content-Type: image/x-cdc' "$url/decode?steps=4&gamma=0.8" -o "$name.png"
# The same as a job: 202 and a Location, events until it ends, then the result.
job=$(curl -sSf -D - -o /dev/null --data-binary "@$name.cdc" -H 'Content-Type: image/x-cdc' -H 'Prefer: respond-async' \
  "$url/decode?steps=4&gamma=0.8&seed=7" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
curl -sSfN "$url$job/events"
curl -sSf "$url$job/result" -o "$name.job.png"
ls -l "$photo" "$name.cdc" "$name.png" "$name.job.png"
