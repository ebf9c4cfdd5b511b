"""What a principal sees of the cluster's image: without the topics that it may not describe."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from kraft.broker.gateway import Gateway
from kraft.broker.permissions import Permissions
from kraft.broker.principal import Principal
from metadata.acls import AclOperation, AclResource
from metadata.authorizer import Authorizer
from metadata.image import MetadataImage, topic_ids_map, topics_map

VIEWS_KEPT_MAX = 64
"""Principals whose view of the latest image is kept."""


class Views:
    """What each principal sees of the latest image of one node."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], tuple[MetadataImage, Authorizer | None, MetadataImage]] = OrderedDict()

    def view(self, gateway: Gateway, principal: Principal, may: Permissions) -> MetadataImage:
        image, authorizer, key = gateway.image, gateway.authorizer, (str(principal), principal.host)
        kept = self._kept.get(key)
        if kept is None or kept[0] is not image or kept[1] is not authorizer:
            kept = self._kept[key] = image, authorizer, visible(image, may)
            if len(self._kept) > VIEWS_KEPT_MAX:
                self._kept.popitem(last=False)
        return kept[2]


def visible(image: MetadataImage, may: Permissions) -> MetadataImage:
    """The image without topics that the principal may not describe."""
    topics = {
        topic.topic_id: topic
        for topic in image.topics.values()
        if may.silently(AclOperation.DESCRIBE, AclResource.TOPIC, topic.name)
    }
    if len(topics) == len(image.topics):
        return image
    names = {topic.name: topic_id for topic_id, topic in topics.items()}
    return replace(image, topics=topics_map(topics), topic_ids=topic_ids_map(names))
