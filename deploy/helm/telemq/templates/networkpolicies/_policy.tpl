{{- /* The parts of NetworkPolicies. */ -}}

{{- /* The pods of a component, as a peer. Takes root and component. */ -}}
{{- define "telemq.peer" -}}
- podSelector:
    matchLabels:
      {{- include "telemq.selectorLabels" . | nindent 6 }}
{{- end }}

{{- /* The head of a component's policy. "directions" is its policyTypes. */ -}}
{{- define "telemq.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "telemq.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "telemq.selectorLabels" . | nindent 6 }}
  policyTypes: {{ toJson .directions }}
{{- end }}

{{- /* One rule. Takes "way" (from or to), "peers" (a list; none is anyone) and "ports" of TCP. */ -}}
{{- define "telemq.rule" -}}
- ports:
    {{- range .ports }}
    - protocol: TCP
      port: {{ int64 . }}
    {{- end }}
  {{- with .peers }}
  {{ $.way }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* Prometheus may read metrics. Takes root and ports. */ -}}
{{- define "telemq.ruleOfPrometheus" -}}
{{- with .root.Values.networkPolicy.prometheusFrom -}}
{{ include "telemq.rule" (dict "way" "from" "peers" . "ports" $.ports) }}
{{- end }}
{{- end }}

{{- /* To Postgres: that of the chart, or the external one. */ -}}
{{- define "telemq.ruleToPostgres" -}}
{{- $values := .root.Values }}
{{- if $values.postgres.enabled -}}
{{ include "telemq.rule" (dict "way" "to" "peers" (include "telemq.peer" (dict "root" .root "component" "postgres") | fromYamlArray) "ports" (list $values.postgres.port)) }}
{{- else -}}
{{ include "telemq.rule" (dict "way" "to" "peers" $values.networkPolicy.postgresTo "ports" (list $values.networkPolicy.postgresPort)) }}
{{- end }}
{{- end }}

{{- /* To the queue: the chart's brokers, brokers elsewhere, or NATS. Takes root and component. */ -}}
{{- define "telemq.ruleToQueue" -}}
{{- $values := .root.Values }}
{{- $policy := $values.networkPolicy }}
{{- $brokers := (index $values .component).brokers }}
{{- if eq $values.engine "nats" }}
{{- $own := list (dict "podSelector" (dict "matchLabels" (dict "app.kubernetes.io/name" "nats" "app.kubernetes.io/instance" .root.Release.Name))) }}
{{- $isOwn := and $values.nats.enabled (not $values.nats.url) (not $values.nats.urlSecret.name) -}}
{{ include "telemq.rule" (dict "way" "to" "peers" ($isOwn | ternary $own $policy.natsTo) "ports" (list $policy.natsPort)) }}
{{- else if $brokers }}
{{- $ports := list }}
{{- range regexFindAll `:[0-9]+(,|$)` ($brokers | nospace) -1 }}
{{- $ports = append $ports (trimPrefix ":" . | trimSuffix "," | int64) }}
{{- end -}}
{{ include "telemq.rule" (dict "way" "to" "peers" $policy.brokersTo "ports" (uniq $ports)) }}
{{- else }}
{{- $port := eq .component "streamer" | ternary $values.broker.ports.producers $values.broker.ports.consumers -}}
{{ include "telemq.rule" (dict "way" "to" "peers" (include "telemq.peer" (dict "root" .root "component" "broker") | fromYamlArray) "ports" (list $port)) }}
{{- end }}
{{- end }}
