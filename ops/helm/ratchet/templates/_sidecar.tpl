{{/*
Ratchet as a native sidecar of a pod of your own chart: make this chart a dependency, with `ratchet.roles.enabled: false`, and write

    spec:
      enableServiceLinks: false
      securityContext:
        fsGroup: 10001
      initContainers:
        {{- include "ratchet.sidecar" .Subcharts.ratchet | nindent 8 }}
      containers:
        - name: agent
          env:
            - {name: OPENAI_BASE_URL, value: "http://127.0.0.1:8420/v1"}
      volumes:
        {{- include "ratchet.sidecarVolumes" .Subcharts.ratchet | nindent 8 }}

It starts before the agent and ends after it. Links to services would be variables such as RATCHET_PORT, which are refused
as no settings. The home belongs to one pod: one replica, and `strategy: {type: Recreate}`.
Its readiness is not asked, so that the agent's pod stays in service while Ratchet is away.
*/}}
{{- define "ratchet.sidecar" -}}
{{- $embedded := or (not .Values.engine.url) (has "learn" (splitList "," .Values.sidecar.roles)) }}
{{- $sandboxes := regexMatch "\\b(branch|learn)\\b" .Values.sidecar.roles }}
{{- $loopback := not .Values.auth.existingSecret }}
- name: ratchet
  image: {{ ternary .Values.image.full .Values.image.slim $embedded }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  args:
    {{- include "ratchet.arguments" (dict "root" . "roles" .Values.sidecar.roles) | nindent 4 }}
  env:
    {{- include "ratchet.environment" . | nindent 4 }}
    {{- if not $loopback }}
    - name: RATCHET_SERVING__HOST
      value: 0.0.0.0
    {{- end }}
  ports:
    - name: gateway
      containerPort: 8420
  startupProbe:
    {{- include "ratchet.probe" (dict "port" 8420 "path" "/healthz" "loopback" $loopback) | nindent 4 }}
    periodSeconds: 5
    failureThreshold: 60
  livenessProbe:
    {{- include "ratchet.probe" (dict "port" 8420 "path" "/healthz" "loopback" $loopback) | nindent 4 }}
    periodSeconds: 15
    failureThreshold: 4
  securityContext:
    {{- include (ternary "ratchet.sandboxSecurity" "ratchet.containerSecurity" $sandboxes) . | nindent 4 }}
  resources:
    {{- toYaml .Values.sidecar.resources | nindent 4 }}
  volumeMounts:
    {{- include "ratchet.mounts" . | nindent 4 }}
{{- end }}

{{- define "ratchet.sidecarVolumes" -}}
{{ include "ratchet.home" . }}
{{ include "ratchet.volumes" . }}
{{- end }}
