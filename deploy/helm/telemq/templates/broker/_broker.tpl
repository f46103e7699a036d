{{- /* The broker's variables that structured values say. */ -}}
{{- define "telemq.brokerEnv" -}}
{{- $broker := .root.Values.broker }}
{{- $listen := .root.Values.listen }}
{{- include "telemq.variable" (list "TELEMQ_BROKER_PRODUCER_BIND" (printf "tcp://%s:%v" $listen (int64 $broker.ports.producers))) }}
{{ include "telemq.variable" (list "TELEMQ_BROKER_CONSUMER_BIND" (printf "tcp://%s:%v" $listen (int64 $broker.ports.consumers))) }}
{{ include "telemq.variable" (list "TELEMQ_BROKER_OPS_ADDRESS" (printf "%s:%v" $listen (int64 $broker.ports.ops))) }}
{{ include "telemq.variable" (list "TELEMQ_BROKER_CAPACITY_RECORDS" $broker.queueCapacity) }}
{{ include "telemq.variable" (list "TELEMQ_BROKER_CAPACITY_BYTES" $broker.queueBytes) }}
{{ include "telemq.variable" (list "TELEMQ_BROKER_DRAIN_S" $broker.drainSeconds) }}
{{- if $broker.keys.enabled }}
{{ include "telemq.variable" (list "TELEMQ_BROKER_KEYS" "/etc/telemq/keys") }}
{{- end }}
{{- if $broker.journal.enabled }}
{{- /* A folder in the volume, which may have a lost+found of its own. */}}
{{ include "telemq.variable" (list "TELEMQ_BROKER_JOURNAL" "/var/lib/telemq/journal") }}
{{- end }}
{{- if $broker.pull.enabled }}
{{ include "telemq.variable" (list "TELEMQ_BROKER_PULL" (printf "tcp://%s:%v" $listen (int64 $broker.pull.port))) }}
{{- end }}
{{- if $broker.push.enabled }}
{{ include "telemq.variable" (list "TELEMQ_BROKER_PUSH" (printf "tcp://%s:%v" $listen (int64 $broker.push.port))) }}
{{- end }}
{{- if $broker.http.enabled }}
{{ include "telemq.variable" (list "TELEMQ_BROKER_HTTP" (printf "%s:%v" $listen (int64 $broker.http.port))) }}
- name: TELEMQ_BROKER_HTTP_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ include "telemq.httpTokenSecret" .root | quote }}
      key: {{ $broker.http.tokenSecret.name | empty | ternary "token" $broker.http.tokenSecret.key | quote }}
{{- end }}
{{- end }}

{{- /* Two listeners on one port are refused here, not by the second one's crash. */ -}}
{{- define "telemq.checkBrokerPorts" -}}
{{- $broker := .Values.broker }}
{{- $ports := list (int64 $broker.ports.producers) (int64 $broker.ports.consumers) (int64 $broker.ports.ops) }}
{{- range tuple $broker.http $broker.pull $broker.push }}
{{- if .enabled }}{{ $ports = append $ports (int64 .port) }}{{ end }}
{{- end }}
{{- if lt (len (uniq $ports)) (len $ports) }}
{{- fail (printf "broker: each of its ports must be another: %v" $ports) }}
{{- end }}
{{- end }}

{{- /* The broker's key directory: a Secret, or a projection of two when more peers are let in. */ -}}
{{- define "telemq.brokerKeysVolume" -}}
{{- $allow := .Values.broker.keys.allow }}
- name: keys
  {{- if $allow.secret }}
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "telemq.brokerKeysSecret" . | quote }}
          items:
            {{- include "telemq.brokerKeysItems" . | nindent 12 }}
      - secret:
          name: {{ $allow.secret | quote }}
          # A file that is taken out of the Secret is a key revoked; were it needed, the kubelet
          # would leave everything as it was.
          optional: true
          items:
            {{- range $allow.files }}
            - key: {{ . | quote }}
              path: {{ printf "allowed/%s" . | quote }}
            {{- end }}
  {{- else }}
  secret:
    secretName: {{ include "telemq.brokerKeysSecret" . | quote }}
    defaultMode: 0440
    items:
      {{- include "telemq.brokerKeysItems" . | nindent 6 }}
  {{- end }}
{{- end }}

{{- define "telemq.brokerKeysItems" -}}
- key: broker.key_secret
  path: broker.key_secret
- key: streamer.key
  path: allowed/streamer.key
- key: collector.key
  path: allowed/collector.key
{{- end }}
