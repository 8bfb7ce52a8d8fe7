{{/* Names and labels. */}}
{{- define "twinset.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "twinset.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "twinset.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "twinset.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Arguments of these: (list $ "component"). */}}
{{- define "twinset.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "twinset.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "twinset.labels" -}}
{{- $root := index . 0 -}}
{{ include "twinset.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{/* (list $ "image name") */}}
{{- define "twinset.image" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.imageRegistry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ index . 1 }}:{{ default $root.Chart.AppVersion $root.Values.imageTag }}
{{- end -}}

{{- define "twinset.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "twinset.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The address at which clients reach the API. */}}
{{- define "twinset.publicUrl" -}}
{{- if .Values.api.publicUrl -}}
{{- .Values.api.publicUrl -}}
{{- else if .Values.ingress.enabled -}}
{{- printf "%s://%s" (empty .Values.ingress.tlsSecret | ternary "http" "https") .Values.ingress.host -}}
{{- else if .Values.gateway.enabled -}}
{{- printf "%s://%s" (and (empty .Values.gateway.tlsSecret) (not (empty .Values.gateway.className)) | ternary "http" "https") .Values.gateway.host -}}
{{- else -}}
http://localhost:8000
{{- end -}}
{{- end -}}

{{/* Settings and secrets of every process. */}}
{{- define "twinset.envFrom" -}}
- configMapRef: {name: {{ include "twinset.fullname" . | quote }}}
- secretRef: {name: {{ include "twinset.fullname" . | quote }}}
{{- range list .Values.broker.existingSecret .Values.store.existingSecret .Values.secrets.existingSecret }}
{{- with . }}
- secretRef: {name: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the pods of a Deployment share: (list $ "component" $part), where $part has nodeSelector, tolerations, ... */}}
{{- define "twinset.podMetadata" -}}
{{- $root := index . 0 -}}{{- $part := index . 2 -}}
labels:
  {{- include "twinset.labels" (list $root (index . 1)) | nindent 2 }}
annotations:
  checksum/settings: {{ include (print $root.Template.BasePath "/settings.yaml") $root | sha256sum }}
  {{- with $part.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "twinset.podSpec" -}}
{{- $root := index . 0 -}}{{- $part := index . 2 -}}
serviceAccountName: {{ include "twinset.serviceAccount" $root | quote }}
automountServiceAccountToken: false
# the variables that Kubernetes would set for a Service named twinset are names of settings, such as TWINSET_PORT
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with $part.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: {{ $part.spreadMaxSkew }}
    topologyKey: {{ . | quote }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "twinset.selector" (list $root (index $ 1)) | nindent 8 }}
  {{- end }}
{{- end -}}

{{- define "twinset.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* A worker's loops touch the file; the same check as the image's. */}}
{{- define "twinset.heartbeat" -}}
exec:
  command: [/bin/sh, -c, 'test -n "$(find "$TWINSET_HEARTBEAT_FILE" -mmin -0.5)"']
{{- end -}}

{{/* The pools, each with the defaults below it, as JSON by name. */}}
{{- define "twinset.pools" -}}
{{- $pools := dict -}}
{{- range $name, $pool := .Values.workers.pools -}}
{{- if not (kindIs "invalid" $pool) -}}
{{- $merged := mergeOverwrite (deepCopy $.Values.workers.defaults) (deepCopy $pool) -}}
{{- /* whole, or a pool could not leave out the GPU of the defaults */ -}}
{{- range list "resources" "nodeSelector" "podAnnotations" -}}
{{- if hasKey $pool . -}}{{- $_ := set $merged . (get $pool .) -}}{{- end -}}
{{- end -}}
{{- $_ := set $pools $name $merged -}}
{{- end -}}
{{- end -}}
{{- toJson $pools -}}
{{- end -}}

{{/* The models of all pools that name some. */}}
{{- define "twinset.namedModels" -}}
{{- $names := list -}}
{{- range include "twinset.pools" . | fromJson -}}{{- $names = concat $names .models -}}{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/* Peers of a NetworkPolicy for a list of address ranges. */}}
{{- define "twinset.anyOf" -}}
{{- range . }}
- ipBlock: {cidr: {{ quote . }}}
{{- end }}
{{- end -}}
