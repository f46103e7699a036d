{{- /* Names, labels and small words. What takes a dict wants "root" (the chart's own context) and
"component": broker, streamer, collector, api, postgres, keys or verify. */ -}}

{{- define "telemq.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "telemq.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "telemq.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "telemq.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* The name of a component's objects. */ -}}
{{- define "telemq.componentName" -}}
{{- printf "%s-%s" (include "telemq.fullname" .root) (eq .component "broker" | ternary "mq" .component) }}
{{- end }}

{{- define "telemq.selectorLabels" -}}
app.kubernetes.io/name: {{ include "telemq.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "telemq.labels" -}}
{{ include "telemq.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: telemq
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The metadata of an object. Takes also "name" (unless the component's) and "annotations". */ -}}
{{- define "telemq.metadata" -}}
name: {{ .name | default (include "telemq.componentName" .) | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "telemq.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* A value as a variable's text. Numbers by toJson: others write 2000000 as 2e+06. */ -}}
{{- define "telemq.text" -}}
{{- kindIs "string" . | ternary . (toJson .) }}
{{- end }}

{{- define "telemq.image" -}}
{{- $image := .image }}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .tag }}
{{- end }}
{{- end }}

{{- define "telemq.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount }}
{{- $account.name | default ($account.create | ternary (include "telemq.componentName" .) "default") }}
{{- end }}

{{- /* What the broker shows: whether it is rendered, and whether its peers need keys. */ -}}
{{- define "telemq.hasBroker" -}}
{{- if and (eq .Values.engine "telemq") .Values.broker.enabled }}true{{ end }}
{{- end }}

{{- define "telemq.hasKeys" -}}
{{- if and (eq .Values.engine "telemq") .Values.broker.keys.enabled }}true{{ end }}
{{- end }}

{{- /* Whether the Job makes the keys: it does unless all are given. */ -}}
{{- define "telemq.makesKeys" -}}
{{- if include "telemq.hasKeys" . }}
{{- $given := .Values.broker.keys.existingSecrets }}
{{- $missing := list }}
{{- if and (include "telemq.hasBroker" .) (not $given.broker) }}{{ $missing = append $missing "broker" }}{{ end }}
{{- if and .Values.streamer.enabled (not $given.streamer) }}{{ $missing = append $missing "streamer" }}{{ end }}
{{- if and .Values.collector.enabled (not $given.collector) }}{{ $missing = append $missing "collector" }}{{ end }}
{{- if and $missing (or $given.broker $given.streamer $given.collector (not .Values.broker.enabled)) }}
{{- fail (printf "broker.keys.existingSecrets: also needed: %s. Keys that belong together are made together; give all of them, or none and a broker." (join ", " $missing)) }}
{{- end }}
{{- if and $missing (include "telemq.hasBroker" .) }}true{{ end }}
{{- end }}
{{- end }}

{{- define "telemq.brokerKeysSecret" -}}
{{- .Values.broker.keys.existingSecrets.broker | default (printf "%s-mq-keys" (include "telemq.fullname" .)) }}
{{- end }}

{{- define "telemq.peerKeySecret" -}}
{{- index .root.Values.broker.keys.existingSecrets .component | default (printf "%s-key" (include "telemq.componentName" .)) }}
{{- end }}

{{- /* The Secret and key of the connection string, as a secretKeyRef. */ -}}
{{- define "telemq.dsnRef" -}}
{{- if .Values.postgres.enabled -}}
name: {{ include "telemq.postgresSecret" . | quote }}
key: dsn
{{- else -}}
{{- $ref := .Values.postgres.external.dsnSecret -}}
name: {{ required "postgres.external.dsnSecret.name is needed when postgres.enabled is false" $ref.name | quote }}
key: {{ $ref.key | quote }}
{{- end }}
{{- end }}

{{- define "telemq.postgresSecret" -}}
{{- .Values.postgres.existingSecret | default (printf "%s-postgres" (include "telemq.fullname" .)) }}
{{- end }}

{{- define "telemq.httpTokenSecret" -}}
{{- .Values.broker.http.tokenSecret.name | default (printf "%s-mq-http" (include "telemq.fullname" .)) }}
{{- end }}

{{- /* A word that nobody knows, made once: what the Secret "name" has under "key" in the cluster,
else a new one, the same wherever this render asks for it. Takes root, name, key. */ -}}
{{- define "telemq.madeOnce" -}}
{{- $made := .root.Values.madeOnce | default dict }}
{{- $_ := set .root.Values "madeOnce" $made }}
{{- $id := printf "%s/%s" .name .key }}
{{- if not (hasKey $made $id) }}
{{- $kept := (lookup "v1" "Secret" .root.Release.Namespace .name).data | default dict }}
{{- $_ := set $made $id (hasKey $kept .key | ternary (index $kept .key | default "" | b64dec) (randAlphaNum 40)) }}
{{- end }}
{{- index $made $id }}
{{- end }}

{{- /* Seconds from SIGTERM to SIGKILL: the drain, rounded up, and time to close and end. Takes the
drain in seconds. 20: a streamer's last statement has 10 s and its connection 5, a collector's and a
gateway's have less. */ -}}
{{- define "telemq.graceSeconds" -}}
{{- add (ceil .) 20 }}
{{- end }}

{{- /* A quantity of memory, such as 1536Mi, in bytes. */ -}}
{{- define "telemq.bytes" -}}
{{- $text := toString . }}
{{- $number := regexFind "^[0-9.]+" $text }}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 }}
{{- mulf (float64 $number) (index $units (trimPrefix $number $text)) | toJson }}
{{- end }}
