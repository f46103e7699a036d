{{- /* Records a second: rate, or 1000 / sleepMillis. With neither it is what `telemq up` does, so
that nobody's disk fills up unasked. */ -}}
{{- define "telemq.streamerRate" -}}
{{- $streamer := .Values.streamer }}
{{- if not (or (kindIs "invalid" $streamer.rate) (kindIs "invalid" $streamer.sleepMillis)) }}
{{- fail "give streamer.rate or streamer.sleepMillis, not both" }}
{{- end }}
{{- if not (kindIs "invalid" $streamer.rate) }}
{{- include "telemq.text" $streamer.rate }}
{{- else if kindIs "invalid" $streamer.sleepMillis -}}
1000
{{- else if eq (float64 $streamer.sleepMillis) 0.0 -}}
0
{{- else }}
{{- divf 1000 $streamer.sleepMillis | toJson }}
{{- end }}
{{- end }}

{{- define "telemq.csvPath" -}}
{{- $csv := .Values.streamer.csv }}
{{- if and $csv.configMap $csv.existingClaim }}
{{- fail "give streamer.csv.configMap or streamer.csv.existingClaim, not both" }}
{{- end }}
{{- if or $csv.configMap $csv.existingClaim -}}
/data/{{ trimPrefix "/" $csv.file }}
{{- else -}}
/usr/share/telemq/dcgm_sample.csv
{{- end }}
{{- end }}
