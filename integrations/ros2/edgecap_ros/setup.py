"""The node's package; EdgeCap itself comes from pip, since no rosdep key names it."""

from setuptools import setup

NAME = "edgecap_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/caption.launch.py"]),
        (f"share/{NAME}/config", ["config/caption.yaml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="EdgeCap",
    maintainer_email="edgecap@users.noreply.github.com",
    description="A lifecycle node that turns images into sentences, on this machine",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"caption = {NAME}.node:main"]},
)
