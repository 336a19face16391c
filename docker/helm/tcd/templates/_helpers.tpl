{{- define "tcd.name" -}}
{{- printf "%s" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "tcd.selector" -}}
app.kubernetes.io/name: tcd
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "tcd.labels" -}}
{{ include "tcd.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "tcd.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{- define "tcd.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "tcd.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "tcd.placement" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- if .root.Values.topologySpread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "tcd.selector" . | nindent 8 }}
{{- end }}
{{- end -}}

{{- define "tcd.probe" -}}
{{- if eq .component "admin" -}}
exec: {command: [python, -c, "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080{{ .path }}', timeout=2)"]}
{{- else -}}
httpGet: {path: {{ .path }}, port: http}
{{- end -}}
{{- end -}}

{{- define "tcd.adminNamespace" -}}
{{- .Values.admin.namespace | default .Release.Namespace -}}
{{- end -}}

{{- define "tcd.shim" -}}
name: shim
image: {{ include "tcd.image" (dict "image" .root.Values.image.shim "root" .root) }}
imagePullPolicy: {{ .root.Values.image.shim.pullPolicy | default "IfNotPresent" }}
securityContext: {{ include "tcd.containerSecurity" . | nindent 2 }}
env:
  - name: TCD_TRITON_URL
    value: {{ .triton }}
  - name: TCD_ATTEST_SK_HEX
    valueFrom:
      secretKeyRef: {name: {{ .root.Values.secret.name }}, key: {{ .root.Values.secret.attestSkHex }}}
  {{- if eq .root.Values.mode "gateway" }}
  - name: TCD_LEDGER
    valueFrom:
      secretKeyRef: {name: {{ .root.Values.secret.name }}, key: {{ .root.Values.secret.ledgerUrl }}}
  - name: TCD_REPLICA
    valueFrom:
      fieldRef: {fieldPath: metadata.name}
  {{- end }}
  {{- range $name, $value := .root.Values.shim.settings }}
  - name: TCD_{{ $name }}
    value: {{ $value | quote }}
  {{- end }}
  {{- if .admin }}
  - {name: TCD_ADMIN_ENABLE, value: "true"}
  - {name: TCD_ADMIN_PORT, value: {{ .root.Values.admin.port | quote }}}
  {{- end }}
  {{- if eq .component "admin" }}
  # it serves nobody but who forwards a port to it
  - {name: TCD_HTTP_HOST, value: 127.0.0.1}
  - {name: TCD_GRPC_ENABLE, value: "false"}
  {{- end }}
{{- if ne .component "admin" }}
ports:
  - {name: http, containerPort: 8080}
  - {name: grpc, containerPort: 8082}
lifecycle:
  # until nobody is sent here any more; then SIGTERM drains
  preStop: {exec: {command: [sleep, "5"]}}
{{- end }}
startupProbe:
  {{- include "tcd.probe" (dict "component" .component "path" "/livez") | nindent 2 }}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 60
livenessProbe:
  {{- include "tcd.probe" (dict "component" .component "path" "/livez") | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 3
readinessProbe:
  {{- include "tcd.probe" (dict "component" .component "path" "/readyz") | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 3
resources: {{ toYaml (ternary .root.Values.admin.resources .root.Values.shim.resources (eq .component "admin")) | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: ledger, mountPath: /var/lib/tcd}
{{- end -}}

{{- define "tcd.triton" -}}
name: triton
image: {{ include "tcd.image" (dict "image" .root.Values.image.triton "root" .root) }}
imagePullPolicy: {{ .root.Values.image.triton.pullPolicy | default "IfNotPresent" }}
securityContext: {{ include "tcd.containerSecurity" . | nindent 2 }}
ports:
  - {name: triton-http, containerPort: 8000}
  - {name: triton-grpc, containerPort: 8001}
  - {name: triton-metrics, containerPort: 8002}
startupProbe:
  httpGet: {path: /v2/health/ready, port: triton-http}
  periodSeconds: 2
  failureThreshold: 90
livenessProbe:
  httpGet: {path: /v2/health/live, port: triton-http}
  periodSeconds: 10
  timeoutSeconds: 3
readinessProbe:
  httpGet: {path: /v2/health/ready, port: triton-http}
  periodSeconds: 5
  timeoutSeconds: 3
resources: {{ toYaml .root.Values.triton.resources | nindent 2 }}
volumeMounts:
  - {name: tmp-triton, mountPath: /tmp}
  - {name: shm, mountPath: /dev/shm}
{{- end -}}
