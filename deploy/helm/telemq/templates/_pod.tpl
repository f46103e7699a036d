{{- /* What all pods and containers share. Each takes a dict with "root" and "component"; some take
"values", which are those of the component unless given. */ -}}

{{- define "telemq.podMetadata" -}}
{{- $values := .values | default (index .root.Values .component) -}}
{{- /* Not the chart's version: a new chart with the same image is no reason to replace pods. */ -}}
labels:
  {{- include "telemq.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/part-of: telemq
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) ($values.podAnnotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The head of a pod's spec: whose it is, where it runs, what it may. */ -}}
{{- define "telemq.podSpec" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "telemq.serviceAccountName" . | quote }}
automountServiceAccountToken: false
# Variables such as TELEMQ_API_PORT, made from the names of Services, would be taken for settings.
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- include "telemq.podSecurity" . | nindent 0 }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml . | nindent 4 | trim }}
    {{- if not (hasKey . "labelSelector") }}
    labelSelector:
      matchLabels:
        {{- include "telemq.selectorLabels" $ | nindent 8 }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Pod Security "restricted"; with "uid" another user than telemq's. */ -}}
{{- define "telemq.podSecurity" -}}
{{- $user := .uid | default .root.Values.podSecurity.runAsUser }}
{{- $group := .uid | default .root.Values.podSecurity.fsGroup -}}
securityContext:
  runAsNonRoot: true
  {{- if not (kindIs "invalid" $user) }}
  runAsUser: {{ int64 $user }}
  runAsGroup: {{ int64 $user }}
  {{- end }}
  {{- if not (kindIs "invalid" $group) }}
  fsGroup: {{ int64 $group }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "telemq.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- /* The head of a container that runs telemq's image: image, security, resources. */ -}}
{{- define "telemq.container" -}}
image: {{ include "telemq.image" (dict "image" .root.Values.image "tag" .root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- include "telemq.containerSecurity" . | nindent 0 }}
resources:
  {{- toYaml .resources | nindent 2 }}
{{- end }}

{{- /* The three probes, by the port named "port" (ops unless given). Startup and liveness ask
/healthz, since starting again brings back neither Postgres nor a broker; readiness asks /readyz. */ -}}
{{- define "telemq.probes" -}}
{{- $port := .port | default "ops" }}
{{- $values := index .root.Values .component }}
{{- range $probe, $path := dict "startupProbe" "/healthz" "livenessProbe" "/healthz" "readinessProbe" "/readyz" }}
{{ $probe }}:
  httpGet:
    path: {{ $path }}
    port: {{ $port }}
  {{- toYaml (index $values $probe) | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Variables from the maps called settings: those that several share, then the component's. */ -}}
{{- define "telemq.settings" -}}
{{- $variables := include (printf "telemq.variables.%s" .component) .root | fromYaml }}
{{- $own := (index .root.Values .component | default dict).settings | default dict }}
{{- $maps := list (list $variables.shared (.root.Values.settings | default dict)) (list $variables.own $own) }}
{{- range $maps }}
{{- $settings := last . }}
{{- range $key, $variable := first . }}
{{- $value := index $settings $key }}
{{- if not (kindIs "invalid" $value) }}
- name: {{ $variable }}
  value: {{ include "telemq.text" $value | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A variable with what a value says. Takes a list of name and value. */ -}}
{{- define "telemq.variable" -}}
- name: {{ first . }}
  value: {{ include "telemq.text" (last .) | quote }}
{{- end }}

{{- define "telemq.insecure" -}}
# Services listen on the pod's address, or nobody could probe or scrape them; the NetworkPolicies
# say who may. Whether brokers want keys and gateways tokens does not depend on it.
- name: TELEMQ_INSECURE
  value: "true"
{{- end }}

{{- define "telemq.dsn" -}}
- name: TELEMQ_DSN
  valueFrom:
    secretKeyRef:
      {{- include "telemq.dsnRef" .root | nindent 6 }}
{{- end }}

{{- define "telemq.extraEnv" -}}
{{- with (index .root.Values .component).extraEnv }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- define "telemq.extraEnvFrom" -}}
{{- with (index .root.Values .component).extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Volumes of every pod and mounts of every container of telemq: the root is read-only. */ -}}
{{- define "telemq.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- if and (has .component (list "streamer" "collector")) (include "telemq.hasKeys" .root) }}
- name: key
  secret:
    secretName: {{ include "telemq.peerKeySecret" . | quote }}
    defaultMode: 0440
    items:
      - key: {{ .component }}.key_secret
        path: {{ .component }}.key_secret
      - key: broker.key
        path: broker.key
{{- end }}
{{- with (index .root.Values .component).extraVolumes }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- define "telemq.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if and (has .component (list "streamer" "collector")) (include "telemq.hasKeys" .root) }}
- name: key
  mountPath: /etc/telemq/key
  readOnly: true
{{- end }}
{{- with (index .root.Values .component).extraVolumeMounts }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- /* The init container that brings the database to the schema of this version. It waits for
Postgres; where several run at once, one migrates and the others wait for it. */ -}}
{{- define "telemq.migrate" -}}
{{- $migrate := .root.Values.migrate }}
{{- if $migrate.enabled }}
initContainers:
  - name: migrate
    {{- include "telemq.container" (dict "root" .root "resources" $migrate.resources) | nindent 4 }}
    args: [migrate]
    env:
      {{- include "telemq.dsn" . | nindent 6 }}
      {{- include "telemq.variable" (list "TELEMQ_MIGRATE_WAIT_S" $migrate.waitSeconds) | nindent 6 }}
      {{- include "telemq.settings" (dict "root" .root "component" "once") | nindent 6 }}
    volumeMounts:
      - name: tmp
        mountPath: /tmp
{{- end }}
{{- end }}
