{{- /* Name of the port with the metrics of a worker, counted from 0. */ -}}
{{- define "telemq.workerPort" -}}
{{- if . }}ops-{{ add . 1 }}{{ else }}ops{{ end }}
{{- end }}

{{- /* What KEDA looks at: the records that wait, as Prometheus knows them, or as each broker tells.
Brokers are filled evenly, so each one's share of the target is enough to look at one by one. */ -}}
{{- define "telemq.kedaTriggers" -}}
{{- $keda := .Values.collector.autoscaling.keda }}
{{- if $keda.prometheusAddress -}}
- type: prometheus
  metadata:
    serverAddress: {{ $keda.prometheusAddress | quote }}
    query: {{ printf `sum(telemq_broker_ready_records{namespace="%s"})` .Release.Namespace | quote }}
    threshold: {{ include "telemq.text" $keda.recordsPerCollector | quote }}
{{- else if not (include "telemq.hasBroker" .) }}
{{- fail "collector.autoscaling by keda asks this chart's brokers: use by cpu, or keda.prometheusAddress" }}
{{- else if kindIs "invalid" .Values.broker.replicas }}
{{- fail "collector.autoscaling by keda asks each broker: give broker.replicas, or keda.prometheusAddress" }}
{{- else }}
{{- $brokers := int (max 1 .Values.broker.replicas) }}
{{- $share := max 1 (div $keda.recordsPerCollector $brokers) }}
{{- range $n := until $brokers }}
- type: metrics-api
  metadata:
    url: {{ include "telemq.brokerOpsUrl" (dict "root" $ "number" $n) }}/status.json
    valueLocation: stats.ready_records
    targetValue: {{ $share | quote }}
{{- end }}
{{- end }}
{{- end }}
