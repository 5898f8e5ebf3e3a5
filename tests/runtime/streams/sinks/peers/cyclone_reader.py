"""A DDS participant that knows EdgeCap not at all: prints what it reads of a String_ topic.

python cyclone_reader.py TOPIC COUNT volatile|transient_local
"""

import os
import sys
import time
from dataclasses import dataclass

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration


@dataclass
class String_(IdlStruct, typename="std_msgs::msg::dds_::String_"):
    data: str


name, count, durability = sys.argv[1], int(sys.argv[2]), sys.argv[3]
late = durability == "transient_local"
qos = Qos(
    Policy.Reliability.Reliable(duration(seconds=1)),
    Policy.Durability.TransientLocal if late else Policy.Durability.Volatile,
    Policy.History.KeepAll,
    Policy.DataRepresentation(use_cdrv0_representation=True),
)
participant = DomainParticipant(int(os.environ["ROS_DOMAIN_ID"]))
reader = DataReader(participant, Topic(participant, name, String_, qos=qos), qos=qos)
publications = BuiltinDataReader(participant, BuiltinTopicDcpsPublication)
print("ready", flush=True)
taken: list[str] = []
deadline = time.monotonic() + 20
seen = set()
while len(taken) < count and time.monotonic() < deadline:
    for publication in publications.take(20):
        if publication.topic_name == name:
            seen.add(publication.type_name)
    taken += [sample.data for sample in reader.take(50)]
    time.sleep(0.02)
print(sorted(seen))
for text in taken:
    print(text)
