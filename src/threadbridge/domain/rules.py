"""Who may answer and quote: what the owner chose for all posts, for one post, and what the source says.

Rule: the narrower word counts only where the owner has not spoken. What the source calls "accounts you follow" leaves
nobody here but those who are mentioned, since an account follows nobody in the Fediverse.
"""

from __future__ import annotations

from dataclasses import dataclass

from threadbridge.domain.posts import Post, QuoteRule, ReplyRule

REPLY_RULES: dict[ReplyRule, str] = {
    "source": "as at the source",
    "everyone": "everybody",
    "followers": "followers and whoever is mentioned",
    "mentioned": "whoever is mentioned",
    "nobody": "nobody",
}
QUOTE_RULES: dict[QuoteRule, str] = {
    "everyone": "everybody",
    "followers": "followers",
    "ask": "whoever I let, one by one",
    "nobody": "nobody",
}
# The source's words for who may answer (`SourcePost.audience`); a word that is not known is taken as a narrow one.
_AT_THE_SOURCE: dict[str, ReplyRule] = {
    "everyone": "everyone",
    "followers_only": "followers",
    "accounts_you_follow": "mentioned",
    "mentioned_only": "mentioned",
    "parent_post_author_only": "mentioned",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What an owner chose for all posts. `spoiler_words` is the content warning ('' for the usual one); `link_cards`
    says links as attachments too (FEP-8967); `own_pages` makes `url` of posts our page instead of the source's."""

    replies: ReplyRule = "source"
    quotes: QuoteRule = "everyone"
    spoiler_words: str = ""
    link_cards: bool = False
    own_pages: bool = False

    def who_answers(self, post: Post) -> ReplyRule:
        """Who may answer this post; never 'source'."""
        return answers_to(post.reply_rule or self.replies, post.audience)

    def who_quotes(self, post: Post) -> QuoteRule:
        """Who may quote this post."""
        return post.quote_rule or self.quotes


def answers_to(rule: ReplyRule, audience: str | None) -> ReplyRule:
    """Who may answer a post under a rule, given the source's word for it (None: everybody); never 'source'."""
    return _AT_THE_SOURCE.get(audience or "everyone", "mentioned") if rule == "source" else rule
