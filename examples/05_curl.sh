#!/bin/sh
# A curl session with a broker's HTTP way (docs/ways.md): publish, consume, settle.
#
#     telemq broker --http 127.0.0.1:9604
#     sh examples/05_curl.sh http://127.0.0.1:9604
#
# It takes messages from the queue, so use it on a broker of its own.
# With a token: export TELEMQ_BROKER_HTTP_TOKEN, and curl gets it from its standard input, since
# others can read a command line.
set -eu
broker=${1:-http://127.0.0.1:9604}

ask() {
    path=$1
    shift
    if [ -n "${TELEMQ_BROKER_HTTP_TOKEN:-}" ]; then
        printf 'header = "Authorization: Bearer %s"\n' "$TELEMQ_BROKER_HTTP_TOKEN" |
            curl --config - --silent --show-error --fail-with-body -X POST "$broker$path" "$@"
    else
        curl --silent --show-error --fail-with-body -X POST "$broker$path" "$@"
    fi
    echo
}

now=$(date -u +%Y-%m-%dT%H:%M:%SZ)

# 202: it is queued. The broker gives it an id.
gpu=GPU-00000000-0000-0000-0000-000000000005
record='{"timestamp": "'$now'", "metric_name": "DCGM_FI_DEV_GPU_TEMP", "uuid": "'$gpu'", "value": 41}'
ask /publish -d "{\"payload\": $record}"

# With an id of your own it may be repeated: it is queued once.
ask /publish -d '{"id": "example/05#0", "payload": "any text"}'
ask /publish -d '{"id": "example/05#0", "payload": "any text"}'

# At most once: it counts as settled when the answer has been sent.
ask '/consume?timeout_s=5'

# At least once: lent until it is settled.
message=$(ask '/consume?ack=manual&timeout_s=5')
echo "$message"
lease=$(echo "$message" | sed 's/.*"lease":"\([^"]*\)".*/\1/')
ask /settle -d '{"lease": "'"$lease"'", "outcome": "ok"}'

# Nothing is left: 204, an empty answer.
ask '/consume?timeout_s=0.1'
echo "the queue is empty"
