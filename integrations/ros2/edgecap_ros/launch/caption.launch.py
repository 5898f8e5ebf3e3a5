"""ros2 launch edgecap_ros caption.launch.py image:=/camera/image_raw profile:=assistive"""

from ament_index_python.packages import get_package_share_path
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode


def generate_launch_description() -> LaunchDescription:
    """One node; its parameters come from a file, the most usual ones from the command line."""
    default = get_package_share_path("edgecap_ros") / "config" / "caption.yaml"
    image = LaunchConfiguration("image")
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="/camera/image_raw"),
            DeclareLaunchArgument("name", default_value="edgecap"),
            DeclareLaunchArgument("namespace", default_value=""),
            DeclareLaunchArgument("params_file", default_value=str(default)),
            DeclareLaunchArgument("image_transport", default_value="raw"),
            DeclareLaunchArgument("profile", default_value=""),
            LifecycleNode(
                package="edgecap_ros",
                executable="caption",
                name=LaunchConfiguration("name"),
                namespace=LaunchConfiguration("namespace"),
                output="screen",
                parameters=[
                    LaunchConfiguration("params_file"),
                    {
                        "image_transport": LaunchConfiguration("image_transport"),
                        "profile": LaunchConfiguration("profile"),
                    },
                ],
                remappings=[("image", image), ("image/compressed", [image, "/compressed"])],
            ),
        ]
    )
