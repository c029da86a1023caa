"""Starts the Java virtual machine of a simulator, as its adapter says."""

from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

from streams.runtime.java import java_executable

# Many machines run side by side, so each gets one core's worth of compiler and collector threads.
_OPTIONS = ("-Xms32m", "-XX:+UseSerialGC", "-XX:ActiveProcessorCount=1", "-XX:-UsePerfData")


def start_jvm(jar: str, directory: str, *options: str) -> JavaGateway:
    """A machine of its own that has loaded `jar`, runs in `directory` and ends with this process."""
    port, process = launch_gateway(
        classpath=jar,
        javaopts=[*_OPTIONS, *options],
        java_path=str(java_executable()),
        cwd=directory,
        die_on_exit=True,
        return_proc=True,
    )
    return JavaGateway(gateway_parameters=GatewayParameters(auto_field=True, port=port), java_process=process)
