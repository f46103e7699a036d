{{- /* A broker's ops address by its pod's name. Takes root and number. */ -}}
{{- define "telemq.brokerOpsUrl" -}}
{{- $name := include "telemq.componentName" (dict "root" .root "component" "broker") }}
{{- printf "http://%s-%d.%s.%s.svc.%s:%d" $name (int .number) $name .root.Release.Namespace .root.Values.clusterDomain (int64 .root.Values.broker.ports.ops) }}
{{- end }}

{{- /* Which brokers the gateway asks for /api/v1/status: those given, or this chart's if their
number is known; 64 at most. */ -}}
{{- define "telemq.brokerOps" -}}
{{- if .Values.api.brokerOps -}}
{{ .Values.api.brokerOps }}
{{- else if and (include "telemq.hasBroker" .) (not (kindIs "invalid" .Values.broker.replicas)) }}
{{- $urls := list }}
{{- range $n := until (int (min 64 .Values.broker.replicas)) }}
{{- $urls = append $urls (include "telemq.brokerOpsUrl" (dict "root" $ "number" $n)) }}
{{- end }}
{{- join "," $urls }}
{{- end }}
{{- end }}

{{- /* To the brokers' ops addresses: those given, or this chart's. */ -}}
{{- define "telemq.ruleToBrokerOps" -}}
{{- $ops := .Values.api.brokerOps }}
{{- if $ops }}
{{- $ports := list }}
{{- range regexFindAll `:[0-9]+/?(,|$)` ($ops | nospace) -1 }}
{{- $ports = append $ports (regexFind `[0-9]+` . | int64) }}
{{- end -}}
{{ include "telemq.rule" (dict "way" "to" "peers" .Values.networkPolicy.brokersTo "ports" (uniq $ports)) }}
{{- else if include "telemq.brokerOps" . -}}
{{ include "telemq.rule" (dict "way" "to" "peers" (include "telemq.peer" (dict "root" . "component" "broker") | fromYamlArray) "ports" (list .Values.broker.ports.ops)) }}
{{- end }}
{{- end }}
