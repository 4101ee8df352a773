"""Words by which mail systems and auto-responders give themselves away, in the languages that mail is written in.

Only words of header fields and fixed phrases; what the text of a failure means is in config/bounce_rules.toml. A word
here never decides alone: the reader asks for structure too.
"""

from bounce.patterns import linear

MAIL_SYSTEM = linear(
    r"(?i)(?:^|[<\s\"(])(?:mailer-?_?daemon|mail-?daemon|mdaemon|maildaemon|post[-_]?master|post-?office|"
    r"mail-?delivery[\w.-]*|bounces?|no-?reply-?bounce|microsoftexchange[0-9a-f]*|mailadmin|mailsystem)@?\b"
    r"|mail delivery (?:sub)?system|mail deliver system|system administrator|mail system|mail administrator"
    r"|delivery (?:sub)?system|internet mail delivery|mailzustellsystem|mail router|\bno-?reply@|do-?not-?reply@"
)
"""A From field of a mail system."""

PURE_MAIL_SYSTEM = linear(
    r"(?i)mailer-?_?daemon|mail-?daemon|mail delivery (?:sub)?system|mail deliver system|microsoftexchange"
)
"""A From field that no person uses; a postmaster may be a person."""

FAILURE_SUBJECT = linear(
    r"(?i)undeliver|non-?deliver|not? (?:be )?deliver|delivery (?:status )?(?:notification|report|failure|failed|error|problem|has failed)"
    r"|(?:failure|failed) (?:notice|delivery|to deliver)|deliver(?:y|ing)? (?:of )?(?:mail|message)? ?(?:has )?fail"
    r"|returned (?:mail|e-?mail|message|to sender)|mail (?:system )?(?:error|delivery)|message (?:delivery )?(?:has )?(?:failed|failure|not delivered)"
    r"|mail (?:could )?not (?:be )?delivered|mail delivery|bounced (?:mail|message)|delivery (?:to|of) .* fail|couldn.t be delivered"
    r"|rejected (?:mail|message|posting)|message (?:was )?rejected|(?:mail|message) blocked|recipient (?:address )?(?:unknown|rejected)"
    r"|user unknown|address not found|cannot send message|unable to deliver|failed mail|mail failure|nondeliverable|error sending"
    # German, French, Spanish, Portuguese, Italian, Dutch
    r"|unzustellbar|nicht zustellbar|zustellung|nicht zugestellt|r\x{fc}cksendung|non remis|\x{e9}chec de (?:la )?(?:remise|livraison|distribution|l.envoi)"
    r"|non d\x{e9}livr|non distribu|impossible de (?:remettre|d\x{e9}livrer)|retour (?:de|du) (?:mail|message|courrier)"
    r"|no (?:se )?(?:ha )?(?:podido |puede |pudo )?(?:entreg|enviad)|devuelto|fallo (?:en|de) (?:la )?entrega|error de entrega|entrega fallida"
    r"|n\x{e3}o (?:foi )?(?:entreg|p\x{f4}de)|falha (?:na|de) entrega|devolvid|mancato recapito|non recapit|mancata consegna|impossibile (?:recapitare|consegnare)"
    r"|onbestelbaar|niet (?:bezorgd|afgeleverd|bestelbaar)|bezorging mislukt"
    # Nordic, Slavic, Hungarian, Turkish, Greek, others
    r"|kan ?(?:ikke|inte) (?:leveres|levereras)|kunne ikke leveres|kunde inte levereras|olevererbar|toimitus|ei voitu toimittaa|perille toimittaminen"
    r"|niedostarczon|nie dostarczono|nie mo\x{17c}na dostarczy|zwrot wiadomo|nedoru\x{10d}|nelze doru\x{10d}|kézbesíthetetlen|nem k\x{e9}zbes|teslim edile|iletilemedi"
    r"|\x{3b1}\x{3bd}\x{3b5}\x{3c0}\x{3af}\x{3b4}\x{3bf}\x{3c4}|\x{3c0}\x{3b1}\x{3c1}\x{3ac}\x{3b4}\x{3bf}\x{3c3}\x{3b7}"
    r"|недоставлен|не (?:может быть )?доставлен|не удалось доставить|ошибка доставки|возвращ|недостав"
    # East Asian, Arabic, Hebrew, Thai
    r"|配信(?:できま|不能|エラー|失敗)|送信(?:できま|失敗|エラー)|未配信|不達|届けられ|返送|エラー通知|メールエラー|エラーメール|退信|退回|无法(?:投递|送达|传递|发送)|無法(?:投遞|送達|傳遞|傳送|寄送)"
    r"|投递失败|投遞失敗|发送失败|未送达|未能送达|系统退信|배달 ?(?:되지|할 수|실패|못)|전송 ?실패|반송|보내지 못|تعذر|لم يتم تسليم|فشل (?:التسليم|تسليم)|מסירת|לא נמסר"
    r"|ส่งไม่(?:สำเร็จ|ได้)|không (?:thể )?(?:gửi|chuyển)|gagal (?:dikirim|terkirim)|tidak (?:dapat )?(?:terkirim|dikirim)"
)
"""A Subject of a bounce."""

DELAY = linear(
    r"(?i)delivery (?:status notification \(delay\)|delayed|is delayed|has been delayed|incomplete|warning)|\(delay(?:ed)?\)|delayed (?:mail|message|delivery)"
    r"|still (?:being )?(?:undelivered|not (?:been )?delivered|trying)|message (?:still )?undelivered after|has not yet been delivered|not been delivered (?:yet|to)"
    r"|will (?:continue|keep) (?:to (?:try|be)|trying|attempt)|will be (?:retried|attempted|re-?tried)|delivery attempts will continue|continue to try|keep trying"
    r"|you do not need to resend|no action is required on your part|this is (?:only )?a warning|warning message only|temporarily delayed|delay in delivery"
    r"|verz\x{f6}ger(?:t|ung)|retard(?:\x{e9}|\x{e9}e)? (?:de|dans)|sera (?:r\x{e9}essay|tent)|retrasad|se ha retrasado|atrasad|in ritardo|ritardat|vertraagd|vertraging"
    r"|задерж|отложен|遅延|延迟|延遲|再送|지연"
)
"""A notice that delivery goes on."""

AUTO_REPLY_SUBJECT = linear(
    r"(?i)^\W*(?:auto(?:matic|mated|matique|matisch\w*|mática|matica)?[ -]?(?:re(?:ply|sponse|sponder|ponse)|replied|reponse|antwort)|auto ?:|autoreply|auto-?re:)"
    r"|out[ -]of[ -](?:the )?office|\booo\b|away from (?:my |the )?(?:office|desk|mail|email)|\bon (?:vacation|holiday|leave|annual leave|maternity leave)|vacation (?:reply|response|message)"
    r"|^\W*away (?:until|from)|i am (?:away|out)|currently (?:away|out)|abwesenheit|abwesend|au(?:\x{df}|ss)er haus|nicht im (?:b\x{fc}ro|haus)|automatische antwort"
    r"|r\x{e9}ponse automatique|absen(?:t|ce) du bureau|absence|en cong\x{e9}|respuesta autom\x{e1}tica|fuera de (?:la )?oficina|resposta autom\x{e1}tica|aus\x{ea}ncia|fora do escrit"
    r"|risposta automatica|fuori (?:sede|ufficio)|assenza|automatisch antwoord|afwezig|autosvar|automatiskt? svar|fravær|frånvaro|poissa|automaattinen vastaus"
    r"|automatyczna odpowied|poza biurem|nieobecno|automatick\x{e1} odpov|mimo kancel|automatikus v\x{e1}lasz|otomatik yan\x{131}t|автоответ|автоматический ответ|нет на месте|в отпуске"
    r"|自動返信|自動応答|不在(?:通知|の|です|のお知らせ)|休暇|自动回复|自动答复|自動回覆|自動回復|外出|자동 ?(?:회신|응답|답장)|부재|رد تلقائي|מענה אוטומטי|תשובה אוטומטית|ตอบกลับอัตโนมัติ|trả lời tự động"
    r"|thank you for (?:your (?:e-?mail|message|enquiry|inquiry)|contacting)|we (?:have )?received your|(?:ticket|case|request) (?:received|created|opened)|\[ticket"
)
"""A Subject of an automatic answer."""

CHALLENGE = linear(
    r"(?i)challenge[ -/]response|sender (?:verification|authentication|address verification)|verify your (?:e-?mail|address) (?:to|so|in order)|confirm (?:your (?:message|e-?mail|mail)|that you are|you are (?:a )?(?:human|person))"
    r"|(?:message|mail|email) (?:is )?(?:being )?held (?:until|pending|for)|please (?:reply|click)[^\n]{0,60}to (?:confirm|release|deliver|verify)|awaiting (?:your )?(?:confirmation|verification)"
    r"|spam ?arrest|boxbe|\btmda\b|qurb|earthlink.{0,20}spamblocker|mailinblack|antispam uol|bluebottle|0spam|captcha|whitelist you|approved senders? list"
)
"""A mail that wants its sender to prove to be a person."""

UNSUBSCRIBE = linear(
    r"(?i)^\W*(?:(?:please |bitte |kindly )?(?:un-?subscribe(?: me| request)?|remove(?: me)?|opt[ -]?out|take me off[\w\s]{0,20}|stop(?: mail| e-?mails?)?|abmelden|abbestellen|austragen"
    r"|d\x{e9}s(?:abonne\w*|inscri\w*)|me d\x{e9}sabonner|(?:cancelar|darse de|dar de) (?:suscripci\x{f3}n|baja)|baja|cancelar (?:inscri\x{e7}\x{e3}o|assinatura)|descadastrar|disiscri\w*|cancellami|cancella(?:zione)?"
    r"|afmelden|uitschrijven|avregistrera|afmeld|avmeld|peruuta tilaus|wypisz\w*|odhl\x{e1}sit|leiratkoz\w*|отпис\w*|配信停止|登録解除|退订|取消订阅|退訂|수신 ?거부|abonelikten \w+)\W*)$"
)
"""A whole Subject, or the whole first line of a text, that asks for an end."""

FAILED_WORDS = linear(
    r"(?i)could ?n.t|could not|cannot|can.t|unable|fail|not (?:be(?:en)? )?deliver|undeliver|reject|refus|return|unknown|bounce|error|sorry|problem|did not reach|not reached|not accept"
    r"|nicht|unzustell|fehl|\x{e9}chec|impossible|erreur|n.a pas|error|no (?:se|ha|pud)|fall|devuel|n\x{e3}o|falha|erro|impossibil|errore|mancat|niet|mislukt|kan ikke|kunde inte|kunne ikke|fel"
    r"|nie |b\x{142}\x{105}d|nelze|chyba|nem |hiba|не |ошиб|できま|エラー|失敗|不明|无法|失败|退信|無法|失敗|錯誤|错误|없|실패|오류|تعذر|لم |לא |ไม่|không|gagal|tidak"
)
"""Any word of failing; a notice without one is no bounce."""
