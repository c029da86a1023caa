{{/* What every container of Ratchet has, and the volumes that it mounts. */}}

{{/* The user is set here too: a sidecar is in a pod whose other containers may run as somebody else. */}}
{{- define "ratchet.containerSecurity" -}}
{{ include "ratchet.user" . }}
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/*
As above, for a container with sandboxes. The runtime's own seccomp profile lets pidfd_getfd through, which their isolation by
Landlock needs, with the capability SYS_PTRACE alone; a process that is not root does not get the capability itself.
*/}}
{{- define "ratchet.sandboxSecurity" -}}
{{ include "ratchet.user" . }}
{{- with .Values.sandboxes.localhostProfile }}
capabilities:
  drop: [ALL]
seccompProfile:
  type: Localhost
  localhostProfile: {{ . }}
{{- else }}
capabilities:
  drop: [ALL]
  add: [SYS_PTRACE]
seccompProfile:
  type: RuntimeDefault
{{- end }}
{{- end }}

{{- define "ratchet.user" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
{{- end }}

{{- define "ratchet.environment" -}}
- name: RATCHET_HOME
  value: /var/lib/ratchet
- name: RATCHET_KAFKA__BOOTSTRAP
  value: {{ required "kafka.bootstrap: name a Kafka cluster, as host:9092" .Values.kafka.bootstrap | quote }}
{{- with .Values.engine.url }}
- name: RATCHET_ENGINE__URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.model.path }}
- name: RATCHET_MODEL
  value: {{ . | quote }}
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with .Values.auth }}
{{- if .existingSecret }}
- name: RATCHET_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .tokenKey }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ratchet.arguments" -}}
- run
- --roles
- {{ .roles | quote }}
{{- include "ratchet.configFile" .root }}
{{- end }}

{{- define "ratchet.configFile" -}}
{{- if .Values.config.existingSecret }}
- --config
- /etc/ratchet/ratchet.toml
{{- end }}
{{- end }}

{{- define "ratchet.mounts" -}}
- name: ratchet-home
  mountPath: /var/lib/ratchet
- name: ratchet-tmp
  mountPath: /tmp
{{- if .Values.config.existingSecret }}
- name: ratchet-config
  mountPath: /etc/ratchet
  readOnly: true
{{- end }}
{{- if .Values.auth.existingSecret }}
- name: ratchet-tokens
  mountPath: /var/lib/ratchet/tokens.json
  subPath: tokens.json
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* All volumes but the home. */}}
{{- define "ratchet.volumes" -}}
- name: ratchet-tmp
  emptyDir:
    sizeLimit: {{ .Values.tmp.sizeLimit }}
{{- with .Values.config }}
{{- if .existingSecret }}
- name: ratchet-config
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: ratchet.toml
{{- end }}
{{- end }}
{{- with .Values.auth }}
{{- if .existingSecret }}
- name: ratchet-tokens
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ .tokensKey }}
        path: tokens.json
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "ratchet.home" -}}
- name: ratchet-home
  persistentVolumeClaim:
    claimName: {{ .Values.persistence.existingClaim | default (printf "%s-home" (include "ratchet.name" .)) }}
{{- end }}

{{/* `port` is where it answers; what listens on loopback is asked from within, since kubelet cannot reach it. */}}
{{- define "ratchet.probe" -}}
{{- if .loopback -}}
exec:
  command:
    - python
    - -c
    - "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{{ .port }}{{ .path }}', timeout=4)"
{{- else -}}
httpGet:
  port: {{ .port }}
  path: {{ .path }}
{{- end }}
timeoutSeconds: 5
{{- end }}

{{- define "ratchet.probes" -}}
startupProbe:
  {{- include "ratchet.probe" (dict "port" .port "path" "/healthz" "loopback" .loopback) | nindent 2 }}
  periodSeconds: 5
  failureThreshold: 60
livenessProbe:
  {{- include "ratchet.probe" (dict "port" .port "path" "/healthz" "loopback" .loopback) | nindent 2 }}
  periodSeconds: 15
  failureThreshold: 4
readinessProbe:
  {{- include "ratchet.probe" (dict "port" .port "path" "/readyz" "loopback" .loopback) | nindent 2 }}
  periodSeconds: 10
  failureThreshold: 3
{{- end }}
