{{- /* Records a second: rate, or 1000 / sleepMillis. With neither it is what `telemq up` does, so
that nobody's disk fills up unasked. */ -}}
{{- define "telemq.streamerRate" -}}
{{- $streamer := .Values.streamer }}
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
{{- if or $csv.configMap $csv.existingClaim -}}
/data/{{ trimPrefix "/" $csv.file }}
{{- else -}}
/usr/share/telemq/dcgm_sample.csv
{{- end }}
{{- end }}
