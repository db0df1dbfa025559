{{- /* Names, labels and parts that several objects share. */ -}}

{{- /* 44 characters leave room for "-4", the hash that a StatefulSet adds to labels, and the longest suffix below. */ -}}
{{- define "redan.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 44 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 44 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 44 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "redan.peers" -}}
{{ include "redan.fullname" . }}-peers
{{- end -}}

{{- define "redan.domain" -}}
{{ include "redan.peers" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end -}}

{{- /* Takes (list CONTEXT COMPONENT); a selector never changes during the life of a release. */ -}}
{{- define "redan.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: {{ default $context.Chart.Name $context.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "redan.labels" -}}
{{- $context := index . 0 -}}
{{ include "redan.selector" . }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "redan.image" -}}
{{- $image := .Values.image -}}
{{ $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end }}
{{- end -}}

{{- define "redan.secret" -}}
{{ default (printf "%s-auth" (include "redan.fullname" .)) .Values.auth.existingSecret }}
{{- end -}}

{{- define "redan.clusterSecret" -}}
{{ default (printf "%s-cluster" (include "redan.fullname" .)) .Values.clusterSecret.existingSecret }}
{{- end -}}

{{- /* What Pod Security calls restricted, and a root directory that cannot be written. */ -}}
{{- define "redan.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "redan.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* A container that runs for seconds. */ -}}
{{- define "redan.shortResources" -}}
requests:
  cpu: 50m
  memory: 64Mi
  ephemeral-storage: 16Mi
limits:
  memory: 256Mi
  ephemeral-storage: 64Mi
{{- end -}}

{{- define "redan.passwordMount" -}}
- name: password
  mountPath: /run/secrets/redan
  readOnly: true
{{- end -}}

{{- define "redan.passwordVolume" -}}
- name: password
  secret:
    secretName: {{ include "redan.secret" . }}
    defaultMode: 0440
    items:
      - key: {{ .Values.auth.secretKey }}
        path: password
{{- end -}}

{{- define "redan.pullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- /* Values come from YAML, where every number is a float: whole numbers must not become 1e+06. */ -}}
{{- define "redan.toml" -}}
{{- range $name, $value := .Values.settings }}
{{ $name }} = {{ if kindIs "float64" $value }}{{ int64 $value }}{{ else }}{{ toJson $value }}{{ end }}
{{- end }}
{{- end -}}
