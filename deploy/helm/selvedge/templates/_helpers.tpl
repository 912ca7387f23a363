{{- define "selvedge.labels" -}}
app.kubernetes.io/name: selvedge-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: selvedge
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "selvedge.selector" -}}
app.kubernetes.io/name: selvedge-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Image of a program: dict "root" $ "program" "selvedge-agent" */}}
{{- define "selvedge.image" -}}
{{- $images := .root.Values.images -}}
{{ $images.registry }}/{{ .program }}:{{ $images.tag | default .root.Chart.AppVersion }}
{{- end }}
