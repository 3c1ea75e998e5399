{{/* The name of most objects. */}}
{{- define "quorate.name" -}}
{{- default (printf "%s-operator" .Release.Name) .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* What selects the operator's pods; never changes between versions. */}}
{{- define "quorate.selector" -}}
app.kubernetes.io/name: quorate-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "quorate.labels" -}}
{{ include "quorate.selector" . }}
app.kubernetes.io/part-of: quorate
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{/* An image reference of (dict "image" … "default" TAG). */}}
{{- define "quorate.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .default }}
{{- end }}
{{- end }}

{{- define "quorate.operatorImage" -}}
{{ include "quorate.image" (dict "image" .Values.image "default" .Chart.AppVersion) }}
{{- end }}

{{- define "quorate.nodeImage" -}}
{{ include "quorate.image" (dict "image" .Values.nodeImage "default" .Chart.AppVersion) }}
{{- end }}

{{- define "quorate.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "quorate.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* The two security contexts of Pod Security "restricted". */}}
{{- define "quorate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "quorate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
