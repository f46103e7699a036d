{{- /* Which queue a streamer or collector talks to, with its key where brokers want one. */ -}}
{{- define "telemq.queue" -}}
{{- $values := .root.Values }}
{{- $prefix := printf "TELEMQ_%s" (upper .component) }}
{{- if eq $values.engine "nats" }}
- name: TELEMQ_ENGINE
  {{- if $values.nats.urlSecret.name }}
  valueFrom:
    secretKeyRef:
      name: {{ $values.nats.urlSecret.name | quote }}
      key: {{ $values.nats.urlSecret.key | quote }}
  {{- else if $values.nats.url }}
  value: {{ $values.nats.url | quote }}
  {{- else if $values.nats.enabled }}
  value: {{ printf "nats://%s:%v/%s" (include "telemq.natsName" .root) (int64 $values.networkPolicy.natsPort) $values.nats.stream | quote }}
  {{- else }}
  {{- fail "engine nats needs nats.url, nats.urlSecret or nats.enabled" }}
  {{- end }}
{{- else }}
{{- $port := eq .component "streamer" | ternary $values.broker.ports.producers $values.broker.ports.consumers }}
{{- $own := printf "tcp://%s:%v" (include "telemq.componentName" (dict "root" .root "component" "broker")) (int64 $port) }}
{{- $brokers := (index $values .component).brokers }}
{{- if not (or $brokers $values.broker.enabled) }}
{{- fail (printf "%s.brokers is needed when broker.enabled is false" .component) }}
{{- end }}
- name: {{ $prefix }}_BROKER
  value: {{ $brokers | default $own | quote }}
{{- if include "telemq.hasKeys" .root }}
- name: {{ $prefix }}_KEY
  value: /etc/telemq/key/{{ .component }}.key_secret
- name: {{ $prefix }}_BROKER_KEY
  value: /etc/telemq/key/broker.key
{{- end }}
{{- end }}
{{- end }}

{{- define "telemq.natsName" -}}
{{- .Values.nats.fullnameOverride | default (printf "%s-nats" .Release.Name) | trunc 63 | trimSuffix "-" }}
{{- end }}
